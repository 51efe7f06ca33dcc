"""Folders of images: every kind of picture that Pillow writes, which side is up, and what is refused."""
import numpy as np
import pytest
from PIL import Image

from hwnn.datasets import Dataset, image_files, read_image

RED = np.array([[[250, 10, 20], [0, 0, 0]], [[255, 255, 255], [10, 200, 30]]], np.uint8)


@pytest.mark.parametrize("mode, suffix", [("RGB", "png"), ("RGB", "bmp"), ("RGB", "tiff"), ("RGBA", "png"), ("P", "png"), ("P", "gif"), ("CMYK", "tiff"), ("L", "png"), ("1", "png"), ("LA", "png")])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_picture(mode, suffix, channels, tmp_path):
    "What Pillow's own conversion says, which keeps whites white and blacks black."
    Image.fromarray(RED).convert(mode).save(tmp_path/f"one.{suffix}")
    A = read_image(tmp_path/f"one.{suffix}", (2, 2, channels))
    assert A.dtype == np.uint8 and A.shape == (2, 2, channels)
    assert (A[1, 0] == 255).all() and (A[0, 1] == 0).all()
    if mode == "RGB" and channels == 3: assert np.array_equal(A, RED)
    if channels == 1 and mode not in ("1", "P"): assert abs(A[0, 0, 0] - (299*250 + 587*10 + 114*20)/1000) < 2   # ITU-R 601


def test_the_upper_side_is_up(tmp_path):
    "A camera's note that its picture lies on the side."
    image, note = Image.fromarray(RED), Image.Exif()
    note[0x0112] = 6   # to be turned by 90 degrees clockwise
    image.save(tmp_path/"lying.tiff", exif=note)
    assert np.array_equal(read_image(tmp_path/"lying.tiff", (2, 2, 3)), np.rot90(RED, -1))


@pytest.mark.parametrize("A", [np.full((2, 2), 40_000, np.uint16), np.full((2, 2), 70_000, np.int32), np.full((2, 2), 0.5, np.float32)])
def test_more_than_8_bits(A, tmp_path):
    Image.fromarray(A).save(tmp_path/"deep.tiff")
    with pytest.raises(ValueError, match="expected a picture of 8 bits a channel, got .*deep.tiff of mode"): read_image(tmp_path/"deep.tiff", (2, 2, 1))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("b", "a", ".hidden"):
        (tmp_path/name).mkdir()
        for k in range(10): Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)).save(tmp_path/name/f"{k}.PNG")
        (tmp_path/name/"notes.txt").write_text("no picture")
        (tmp_path/name/"._0.png").write_text("what a Mac leaves behind")
    (tmp_path/"list.csv").write_text("beside the folders")
    return tmp_path


def test_from_folder(folder):
    assert {name: len(files) for name, files in image_files(folder).items()} == dict(a=10, b=10)
    data = Dataset.from_folder(folder, [5, 4, 3], 4, validation=0.3, test=0, dtype=np.float64, augment=lambda X, rng: X[:, ::-1].copy())
    assert data.test is None and (len(data.train), len(data.validate)) == (14, 6) and data.train.X.dtype == np.float64
    assert data.preparation == dict(shift=0.0, scale=255.0, features=None, classes=["a", "b"])
    every = {read_image(path, (5, 4, 3)).tobytes(): k for k, files in enumerate(image_files(folder).values()) for path in files}
    for part in (data.train, data.validate):   # each picture under its own class
        for X, Y in zip(part.X, part.Y): assert every[np.round(X*255).astype(np.uint8).tobytes()] == Y.argmax()
    assert data.train.sample()[0].shape == (4, 5, 4, 3)


@pytest.mark.parametrize("change, error, said", [
    (dict(folder=3), TypeError, "expected the path of a folder, got 3"), (dict(folder="nowhere"), ValueError, "where there is none"),
    (dict(image_shape=(5, 4)), ValueError, "expected image_shape"), (dict(image_shape=(5, 4, 2)), ValueError, "(rows, cols, 3)"), (dict(image_shape=(0, 4, 3)), ValueError, "each size"),
    (dict(image_shape=(5.5, 4, 3)), TypeError, "each size"), (dict(test=1.0), ValueError, "expected test"), (dict(test=0.6, validation=0.6), ValueError, "validation + test"),
    (dict(test=0.01), ValueError, "expected enough"), (dict(dtype=np.uint8), TypeError, "float32 or float64"), (dict(batch_size=0), ValueError, "batch_size"),
])
def test_refused(folder, change, error, said):
    with pytest.raises(error) as e: Dataset.from_folder(**dict(folder=folder, image_shape=(5, 4, 3)) | change)
    assert said in str(e.value), e.value


def test_folders_without_pictures(folder):
    (folder/"c").mkdir()
    with pytest.raises(ValueError, match="got none in 'c'"): Dataset.from_folder(folder, (5, 4, 3))
    (folder/"c"/"0.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="expected a picture, got .*0.jpg"): Dataset.from_folder(folder, (5, 4, 3))
