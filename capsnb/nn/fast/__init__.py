"""The CPU's fast convolution and votes, walled off behind plain ones."""
