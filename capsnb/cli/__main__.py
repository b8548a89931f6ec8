from capsnb.cli import main

main()
