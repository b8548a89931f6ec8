"""What routing by agreement costs beside self-attention (Mitterreiter et al. 2023, Table 3), for notebook 04.

    python benchmarks/routing.py               sizes of the notebook's profile long, into results/bench_routing.json

Both layers at every size in turns, on one thread, several times over: a round gives one exponent each, by which the
notebook judges what the paper prints. A machine that does nothing else meanwhile gives the narrowest spread.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from capsnb.evidence.plans import plan
from capsnb.installation import project
from capsnb.measure import routing_cost
from capsnb.training.cpu_settings import keep_pages
from capsnb.training.provenance import circumstances
from speed import save

FEW, SHORT = 4, 8  # vectors where their numbers grow, and numbers where the vectors do


def timed(ns: list[int], ds: list[int], rounds: int, batch: int) -> dict[str, dict[str, list]]:
    """Seconds of a forward and backward pass, "agreement-n" and the like -> "sizes", "seconds" (rounds, sizes)."""
    sizes = [(n, SHORT) for n in ns] + [(FEW, d) for d in ds]
    found: dict[str, dict[str, list]] = {}
    for _ in range(rounds):
        for kind, costs in routing_cost.measure_together(sizes, rounds=1, batch=batch).items():
            seconds = [cost.seconds for cost in costs]
            for axis, at, part in (("n", ns, seconds[: len(ns)]), ("d", ds, seconds[len(ns) :])):
                of = found.setdefault(f"{kind}-{axis}", {"sizes": at, "seconds": [], "exponents": []})
                of["seconds"].append(part)
                of["exponents"].append(routing_cost.exponent(at, part))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--profile", choices=("smoke", "long"), default="long")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--out", type=Path, help="JSON file; results/bench_routing.json at long")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_pages()  # as trainings do: else new pages of memory cost more than the sums
    settings = plan("04", given.profile).settings
    out = given.out or (project() / "results" / "bench_routing.json" if given.profile == "long" else None)
    record = circumstances() | {"threads": 1, "batch": given.batch, "few": FEW, "short": SHORT}
    record["layers"] = timed(settings["cost n"], settings["cost d"], given.rounds, given.batch)
    save(record, out)
    for name, found in record["layers"].items():
        powers = found["exponents"]
        print(f"{name:12} {min(powers):.2f} to {max(powers):.2f}")


if __name__ == "__main__":
    main()
