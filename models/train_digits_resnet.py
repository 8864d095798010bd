"""Train and export `digits_resnet.onnx`: a residual CNN that reads one 8x8 handwritten digit.

torch is needed only for this script; scikit-learn and onnxruntime too:

    pip install torch==2.13.0 onnx onnxruntime onnxscript scikit-learn numpy
    python models/train_digits_resnet.py

The digits come with scikit-learn (`sklearn.datasets.load_digits`; nothing is downloaded): the test
part of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, 1998, UCI Machine
Learning Repository, doi:10.24432/C50P49, licensed CC BY 4.0. 450 of the 1797 digits, drawn evenly
over the classes, are the test part and take part in nothing else; hyper-parameters were chosen by
`--validate`, which keeps 270 of the other 1347 back. Digits of one writer may be in several parts.

Result: 174970 parameters, 718252 bytes; accuracy 0.9978 on the 450 test digits through ONNX
Runtime, 0.9926 on the validation digits; half a minute on one core.
"""

# mypy: disallow_subclassing_any=False, disallow_untyped_calls=False, warn_return_any=False

import argparse
from collections.abc import Iterator
from pathlib import Path

import digits_data
import numpy as np
import torch  # type: ignore[import-not-found, unused-ignore]
from digits_data import Digits
from torch import Tensor, nn  # type: ignore[import-not-found, unused-ignore]

SEED = 1
EPOCHS = 40
BATCH_SIZE = 64
LEARNING_RATE = 4e-3
WEIGHT_DECAY = 5e-3
WIDTHS = (16, 32, 64)
BLOCKS_PER_STAGE = 2
CALIBRATION_SAMPLES = 300
OPSET = 17


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:  # [batch, inputs, h, w]
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class DigitsResNet(nn.Module):
    """ResNet-14 for 8x8 images: a stem, three stages of two blocks, and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, WIDTHS[0], 3, padding=1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()
        )
        stages = []
        channels = WIDTHS[0]
        for stage, width in enumerate(WIDTHS):
            for block in range(BLOCKS_PER_STAGE):
                stride = 2 if stage > 0 and block == 0 else 1
                stages.append(BasicBlock(channels, width, stride))
                channels = width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, 10)

    def forward(self, image: Tensor) -> Tensor:  # [batch, 1, 8, 8] -> [batch, 10]
        features: Tensor = self.pool(self.stages(self.stem(image)))
        return self.classifier(features.view(features.size(0), -1))


def batches(digits: Digits, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order, each image moved by up to a pixel each way."""
    order = rng.permutation(len(digits.labels))
    for chosen in np.array_split(order, len(order) // BATCH_SIZE):
        padded = np.pad(digits.images[chosen], ((0, 0), (1, 1), (1, 1)))
        corners = rng.integers(0, 3, size=(len(chosen), 2))
        moved = [image[r : r + 8, c : c + 8] for image, (r, c) in zip(padded, corners, strict=True)]
        yield torch.from_numpy(np.stack(moved)[:, None]), torch.from_numpy(digits.labels[chosen])


def train(digits: Digits) -> DigitsResNet:
    """Train for a fixed number of epochs with a fixed seed; nothing is selected on the way."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    rng = np.random.default_rng(SEED)
    model = DigitsResNet()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * (len(digits.labels) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for images, labels in batches(digits, rng):
            loss = nn.functional.cross_entropy(model(images), labels, label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def export(model: DigitsResNet, path: Path) -> None:
    """Export as it is: BatchNormalization stays a node and nothing is folded."""
    torch.onnx.export(
        model,
        (torch.rand(2, 1, 8, 8),),
        path,
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
    )


def choose() -> None:
    """Print the accuracy on digits kept back from the training part; write nothing."""
    training, validation = digits_data.training_and_validation()
    model = train(training)
    with torch.no_grad():
        guesses = model(torch.from_numpy(validation.images[:, None])).argmax(1).numpy()
    print(f"validation accuracy {(guesses == validation.labels).mean():.4f}")


def make() -> None:
    """Train on the whole training part, write model and samples, print the test accuracy."""
    training, test = digits_data.training_and_test()
    model = train(training)
    path = digits_data.FOLDER / "digits_resnet.onnx"
    export(model, path)
    images = test.images[:, None]
    digits_data.write_samples(
        "digits_resnet_calibration", image=training.images[:CALIBRATION_SAMPLES, None]
    )
    digits_data.write_samples("digits_resnet_test", image=images, labels=test.labels)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters} parameters, {path.stat().st_size} bytes")
    print(f"test accuracy {digits_data.accuracy(path, images, test.labels):.4f} (ONNX Runtime)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--validate", action="store_true", help=choose.__doc__)
    choose() if parser.parse_args().validate else make()
