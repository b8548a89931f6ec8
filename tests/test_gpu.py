"""`make gpu` where there is no GPU: its one sentence, and each of its parts on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gpu
from capsnb.nn.models import ZOO, CapsNetConfig, StridedStem
from capsnb.training.provenance import circumstances

PROJECT = Path(__file__).parents[1]
CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch):
    config = CapsNetConfig(stem=StridedStem(channels=4, types=2), decoder_widths=(8,))
    monkeypatch.setitem(ZOO, "capsnet", ZOO["capsnet"]._replace(config=config))


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_without_cuda_one_sentence_and_status_2():
    done = subprocess.run([sys.executable, "benchmarks/gpu.py"], capture_output=True, text=True, cwd=PROJECT)
    assert (done.returncode, done.stdout, done.stderr) == (2, gpu.NO_CUDA + "\n", "")


def test_a_compiled_step_is_compared_with_the_eager_one(small):
    found = gpu.compare("capsnet_dec", CPU, 4)
    assert found["equal"] and found["loss apart"] == found["gradients apart"] == 0
    assert not found["compiled"] and found["ratio"] > 0 and found["eager images/s"] > 0
    assert gpu.shown(found).startswith("capsnet_dec, batch 4: ")
    assert json.loads(json.dumps(found)) == found


def test_a_step_that_differs_is_told_and_one_that_could_not_be_compiled_has_its_reason(small, monkeypatch):
    class Compiled(gpu.TrainStep):
        def __init__(self, *args, steps, **more):
            super().__init__(*args, **more)
            self.factor = 2 if steps else 1
            self._compiled = self.value if steps else None

        def value(self, batch):
            loss, scores = super().value(batch)
            return self.factor * loss, scores

    monkeypatch.setattr(gpu, "TrainStep", Compiled)
    found = gpu.compare("capsnet_dec", CPU, 4)
    assert found["compiled"] and not found["equal"] and "DIFFERENT" in gpu.shown(found)
    assert found["gradients apart"] == pytest.approx(1, rel=1e-3)

    def fails(self, *args, steps, **more):
        super(Compiled, self).__init__(*args, **more)
        self.factor, self._compiled = 1, None if not steps else lambda batch: 1 / 0

    monkeypatch.setattr(Compiled, "__init__", fails)
    found = gpu.compare("capsnet_dec", CPU, 4)
    assert found["equal"] and not found["compiled"] and "division by zero" in found["warning"]


def test_each_network_has_a_process_that_ends_with_the_time(monkeypatch):
    asked = []

    def called(command, limit):
        asked.append((command[command.index("--step") + 1], limit))
        answers = {"capsnet_dec": (0, 'noise\n{"task": "capsnet_dec", "said": "fine"}\n', ""), "deep5": (1, "", "oh")}
        task = asked[-1][0]
        return subprocess.CompletedProcess(command, *answers[task]) if task in answers else None

    monkeypatch.setattr(gpu, "called", called)
    found = gpu.compare_all(100.0, CPU)
    assert [step["task"] for step in found] == list(gpu.NETWORKS)
    assert [step["said"][:16] for step in found] == ["fine", "Its steps failed", "Its steps did no", "Its steps did no"]
    assert all(limit <= 100 for _, limit in asked)
    assert {step["said"] for step in gpu.compare_all(5.0, CPU)} == {"The time for steps was over before it began."}
    assert len(asked) == 4


def test_a_command_ends_with_its_time():
    assert gpu.called([sys.executable, "-c", "import time; time.sleep(60)"], 0.2) is None
    assert gpu.called([sys.executable, "-c", "print(1)"], 60).stdout == "1\n"


def test_what_pytest_counts():
    assert gpu.counts("..\n3 passed, 1 failed in 2.1s\n") == {"passed": 3, "failed": 1}
    assert gpu.counts("1 skipped, 2 errors in 0.1s") == {"skipped": 1, "errors": 2}
    assert gpu.counts("no tests ran in 0.01s") == {}


@pytest.mark.parametrize("status", [None, 0, 1])
def test_a_campaign_runs_only_where_there_is_one(status, monkeypatch):
    asked = []

    def called(command, limit):
        asked.append(command[3:])
        code = (2 if status is None else 0) if command[-1] == "--help" else status
        return subprocess.CompletedProcess(command, code, "", "")

    monkeypatch.setattr(gpu, "called", called)
    found = gpu.campaign(200.0)
    if status is None:
        assert asked == [["campaign", "--help"]] and "no command `capsnb campaign`" in found["said"]
    else:
        assert asked[1] == ["campaign", "--hours", "0.0500"] and found["status"] == status


def test_all_parts_are_recorded_with_their_provenance(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "run_tests", lambda limit: {"passed": 2})
    monkeypatch.setattr(gpu, "compare_all", lambda limit, device, batch: [{"task": "a", "said": f"{limit:.0f}"}])
    monkeypatch.setattr(gpu, "campaign", lambda limit: {"said": f"{limit > 500}"})
    out = tmp_path / "bench_cuda.json"
    record = gpu.run_all(CPU, 10.0, out)
    written = json.loads(out.read_text())
    assert written == record and not gpu.bad(record)
    assert list(written) == [*circumstances(), "minutes", "tests", "steps", "campaign"]
    assert written["steps"] == [{"task": "a", "said": "240"}] and written["campaign"] == {"said": "True"}
    assert gpu.bad(record | {"tests": {"failed": 1}}) and gpu.bad(record | {"campaign": {"status": 1}})
    assert gpu.bad(record | {"steps": [{"equal": False}]})
    late = gpu.run_all(CPU, 0.1, None)
    assert {late["tests"]["said"], late["steps"][0]["said"], late["campaign"]["said"]} == {
        "The time was over before it began."
    }
