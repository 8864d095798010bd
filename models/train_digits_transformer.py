"""Train and export `digits_transformer.onnx`: an encoder that reads strips of handwritten digits.

torch is needed only for this script; scikit-learn and onnxruntime too:

    pip install torch==2.13.0 onnx onnxruntime onnxscript scikit-learn numpy
    python models/train_digits_transformer.py

The digits come with scikit-learn (`sklearn.datasets.load_digits`; nothing is downloaded): the test
part of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, 1998, UCI Machine
Learning Repository, doi:10.24432/C50P49, licensed CC BY 4.0. 450 of the 1797 digits, drawn evenly
over the classes, are the test part and take part in nothing else; hyper-parameters were chosen by
`--validate`, which keeps 270 of the other 1347 back. Digits of one writer may be in several parts.

Result: 104394 parameters, 462310 bytes; accuracy 0.9867 per digit on the 450 test digits in strips
of 6 through ONNX Runtime (0.9844 to 0.9933 in strips of 1 to 5), 0.9704 on the validation digits;
about a minute on one core.
"""

# mypy: disallow_subclassing_any=False, disallow_untyped_calls=False, warn_return_any=False

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import digits_data
import numpy as np
import torch  # type: ignore[import-not-found, unused-ignore]
from digits_data import Digits, Floats, Labels
from torch import Tensor, nn  # type: ignore[import-not-found, unused-ignore]

SEED = 1
EPOCHS = 120
BATCH_SIZE = 64
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2
DROPOUT = 0.1
MOST_DIGITS = 6
COLUMNS = 8  # columns of one digit
WIDTH = 64
HEADS = 4
HIDDEN = 256
LAYERS = 2
CALIBRATION_SAMPLES = 200
OPSET = 16


class Attention(nn.Module):
    """Multi-head self-attention written out, so that it exports as MatMul and Softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:  # [batch, length, WIDTH]
        linears = (self.query, self.key, self.value)
        query, key, value = (self.heads(linear(x)) for linear in linears)
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(WIDTH // HEADS)
        mixed = torch.matmul(torch.softmax(scores, dim=-1), value).transpose(1, 2).contiguous()
        return self.output(mixed.view(x.size(0), x.size(1), WIDTH))

    def heads(self, x: Tensor) -> Tensor:  # [batch, length, WIDTH] -> [batch, HEADS, length, ...]
        return x.view(x.size(0), x.size(1), HEADS, WIDTH // HEADS).transpose(1, 2)


class EncoderLayer(nn.Module):
    """Attention and a feed-forward network, each normalized first and added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.norm2 = nn.LayerNorm(WIDTH)
        self.feed_forward = nn.Sequential(
            nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, WIDTH)
        )
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:  # [batch, length, WIDTH]
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class DigitsTransformer(nn.Module):
    """Reads a strip column by column, and answers for each run of eight columns."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(COLUMNS, WIDTH)
        self.positions = nn.Parameter(torch.randn(1, MOST_DIGITS * COLUMNS, WIDTH) * 0.1)
        self.layers = nn.Sequential(*(EncoderLayer() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.classifier = nn.Linear(WIDTH, 10)

    def forward(self, strip: Tensor) -> Tensor:  # [batch, length, 8] -> [batch, length / 8, 10]
        x = self.embed(strip) + self.positions[:, : strip.size(1)]
        x = self.norm(self.layers(x))
        digits = x.view(x.size(0), x.size(1) // COLUMNS, COLUMNS, WIDTH).mean(dim=2)
        return self.classifier(digits)


def strips(digits: Digits, count: int) -> tuple[Floats, Labels]:
    """Lay `count` digits at a time side by side: [strips, 8 * count, 8] and [strips, count].

    Each digit is used once; those that do not fill a strip are left out. Axis 1 runs along the
    strip, axis 2 down each column.
    """
    whole = len(digits.labels) // count
    columns = digits.images[: whole * count].transpose(0, 2, 1)
    labels = digits.labels[: whole * count].reshape(whole, count)
    return np.ascontiguousarray(columns.reshape(whole, count * COLUMNS, 8)), labels


def batches(digits: Digits, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order: strips of one random length a batch, each digit moved a little."""
    order = rng.permutation(len(digits.labels))
    for chosen in np.array_split(order, len(order) // BATCH_SIZE):
        padded = np.pad(digits.images[chosen], ((0, 0), (1, 1), (1, 1)))
        corners = rng.integers(0, 3, size=(len(chosen), 2))
        moved = [image[r : r + 8, c : c + 8] for image, (r, c) in zip(padded, corners, strict=True)]
        shuffled = Digits(np.stack(moved), digits.labels[chosen])
        inputs, labels = strips(shuffled, int(rng.integers(1, MOST_DIGITS + 1)))
        yield torch.from_numpy(inputs), torch.from_numpy(labels)


def train(digits: Digits) -> DigitsTransformer:
    """Train for a fixed number of epochs with a fixed seed; nothing is selected on the way."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    rng = np.random.default_rng(SEED)
    model = DigitsTransformer()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * (len(digits.labels) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for inputs, labels in batches(digits, rng):
            logits = model(inputs).flatten(0, 1)
            loss = nn.functional.cross_entropy(logits, labels.flatten(), label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def export(model: DigitsTransformer, path: Path) -> None:
    """Export as it is, before LayerNormalization was an operator: all of it in primitive ones."""
    torch.onnx.export(
        model,
        (torch.rand(2, 3 * COLUMNS, 8),),
        path,
        dynamo=False,
        opset_version=OPSET,
        do_constant_folding=False,
        input_names=["strip"],
        output_names=["logits"],
        dynamic_axes={
            "strip": {0: "batch", 1: "length"},
            "logits": {0: "batch", 1: "digits"},
        },
    )


def choose() -> None:
    """Print the accuracy on digits kept back from the training part; write nothing."""
    training, validation = digits_data.training_and_validation()
    model = train(training)
    inputs, labels = strips(validation, MOST_DIGITS)
    with torch.no_grad():
        guesses = model(torch.from_numpy(inputs)).argmax(-1).numpy()
    print(f"validation accuracy {(guesses == labels).mean():.4f}")


def make() -> None:
    """Train on the whole training part, write model and samples, print the test accuracy."""
    training, test = digits_data.training_and_test()
    model = train(training)
    path = digits_data.FOLDER / "digits_transformer.onnx"
    export(model, path)
    calibration, _ = strips(training, MOST_DIGITS)
    digits_data.write_samples(
        "digits_transformer_calibration", strip=calibration[:CALIBRATION_SAMPLES]
    )
    inputs, labels = strips(test, MOST_DIGITS)
    digits_data.write_samples("digits_transformer_test", strip=inputs, labels=labels)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters} parameters, {path.stat().st_size} bytes")
    for count in range(1, MOST_DIGITS + 1):
        score = digits_data.accuracy(path, *strips(test, count))
        print(f"test accuracy {score:.4f} per digit in strips of {count} (ONNX Runtime)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--validate", action="store_true", help=choose.__doc__)
    choose() if parser.parse_args().validate else make()
