"""What readers make of files that nobody meant: a sentence or a set, never another error, in bounded time and memory.

A few examples of each by default; `CAPSNB_FUZZ=2000` asks for so many.
"""

import json
import os
import resource
import signal
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import nbformat.v4
import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_data import affnist, idx, no_data_folder  # noqa: F401
from test_more_sets import matrix
from test_odd_data import noise

from capsnb.data import formats, norb, npz, single
from capsnb.data.folders import Pictures
from capsnb.evidence import notebook_files, report, sweep
from capsnb.nn.models import CapsNetConfig
from capsnb.training import files, runs
from capsnb.training.identity import encode
from capsnb.training.spec import Spec
from capsnb.training.weights import load_weights

EXAMPLES = int(os.environ.get("CAPSNB_FUZZ", "12"))
MOST_BYTES = 300_000_000  # of memory for any of these small files
MOST_SECONDS = 20  # of processor time, for any of them
SENTENCE = (ValueError, FileNotFoundError)


def saved(image, kind, **options):
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def packed(**arrays):
    stream = BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def matlab(tmp):
    scipy.io.savemat(tmp / "x.mat", {"X": noise(shape=(32, 32, 3, 4)), "y": np.arange(4)[:, None] % 10})
    affnist(tmp / "a.mat", 5)
    return (tmp / "x.mat").read_bytes(), (tmp / "a.mat").read_bytes()


def weights(content):
    stream = BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


GRID = b'[base]\nmodel = "capsnet"\n"recipe.epochs" = 3\n[grid]\nseed = [0, 1]\n[[cases]]\ncase = "a"\n'
SMALL = CapsNetConfig(decoder="none")
PICTURE = Image.fromarray(noise(shape=(9, 8, 3)), "RGB")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Whole files of each kind that the broken ones are made of."""
    svhn, affine = matlab(tmp_path_factory.mktemp("mat"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", metadata={"tags": ["parameters"]})])
    kinds = ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "TGA", "JPEG2000", "ICO", "PCX", "SGI", "AVIF")
    return {
        "image": [saved(PICTURE, kind) for kind in kinds] + [saved(PICTURE.convert("RGBA"), "PNG")],
        "npz": [packed(images=noise(shape=(12, 4, 4)), labels=np.arange(12) % 2)],
        "idx": [idx(noise(shape=(3, 4, 4)))],
        "mat": [svhn, affine],
        "norb": [matrix(np.zeros((3, 4)), "info")],
        "toml": [GRID],
        "notebook": [json.dumps(notebook).encode()],
        "spec": [json.dumps(encode(Spec(model=SMALL))).encode()],
        "state": [weights({"a": torch.zeros(3), "b": {"c": [1, 2.0, "x"]}, "threads": 1})],
    }


def read_image(file):
    Pictures((file,), "give another").read()


def upload(file):
    pixels = single.read_picture(file.read_bytes(), file.name)
    single.fit(pixels, (1, 8, 8), dark=True)


READERS = {
    "image": (read_image, upload),
    "npz": (npz.read_npz_file,),
    "idx": (lambda file: formats.read_idx(file, 3, "give another"),),
    "mat": (
        lambda file: formats.read_svhn(file, "give another"),
        lambda file: formats.read_affnist(file, "give another"),
        lambda file: formats.count_affnist(file, "give another"),
    ),
    "norb": (lambda file: norb.read_matrix(file, "give another"),),
    "toml": (sweep.read_grid,),
    "notebook": (notebook_files.load, report.read),
    "spec": (lambda file: runs.read_spec(file.parent),),
    "state": (lambda file: files.load(file, "give another"), load_weights),
}
NAMES = {"spec": "spec.json", "state": "state.pt", "notebook": "00_x.ipynb", "npz": "x.npz", "image": "x.png"}


@st.composite
def broken(draw):
    """How a file is broken: bytes changed, a part cut out, its end cut off, or something else put in."""
    changes = draw(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6))
    cut = draw(st.one_of(st.none(), st.tuples(st.floats(0, 1), st.floats(0, 1))))
    put = draw(st.one_of(st.none(), st.tuples(st.floats(0, 1), st.binary(max_size=30))))
    return draw(st.integers(0, 1000)), changes, cut, put


def mangled(content, how):
    _, changes, cut, put = how
    made = bytearray(content)
    for place, value in changes:
        if made:
            made[int(place * (len(made) - 1))] = value
    if cut is not None:
        start, end = sorted(int(place * len(made)) for place in cut)
        del made[start:end]
    if put is not None:
        at = int(put[0] * len(made))
        made[at:at] = put[1]
    return bytes(made)


@pytest.mark.parametrize("kind", list(READERS))
@pytest.mark.filterwarnings("ignore")
def test_a_broken_file_is_read_or_refused_in_one_sentence(kind, seeds, tmp_path):
    file = tmp_path / NAMES.get(kind, "x")

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(broken())
    def fuzz(how):
        file.write_bytes(mangled(seeds[kind][how[0] % len(seeds[kind])], how))
        for reader in READERS[kind]:
            told = outcome(reader, file)
            assert told is None or ("\n" not in told.strip() and len(told) > 10), told

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with bounded():
        fuzz()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_BYTES


@contextmanager
def bounded():
    """MemoryError for what asks for more than MOST_BYTES, also where earlier tests held more; a signal for a hang."""
    status = Path("/proc/self/status")
    held = [int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmData")]
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (1024 * held[0] + MOST_BYTES, hard))
    before = signal.signal(signal.SIGPROF, hangs)
    try:
        yield
    finally:
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def hangs(*_):
    raise AssertionError(f"a reader took more than {MOST_SECONDS} seconds of processor time")


def outcome(reader, file: Path):
    """The sentence of a refusal, None where the file is read; any other error is raised."""
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        reader(file)
    except SENTENCE as error:
        return str(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None


@pytest.mark.parametrize("name", ["spec.json"])
def test_fields_of_another_kind_in_a_spec_are_one_sentence(name, tmp_path):
    whole = encode(Spec(model=SMALL))
    values = [None, 3, "x", [], {}, {"type": "data"}, {"type": 3}, -1, True, [[1]], {"type": "spec@1"}]
    with bounded():
        for field in ("model", "data", "recipe", "seed", "start", "reset", "frozen", "redraw", "type"):
            for value in values:
                (tmp_path / name).write_text(json.dumps(whole | {field: value}))
                told = outcome(lambda file: runs.read_spec(file.parent), tmp_path / name)
                assert told is None or "\n" not in told
