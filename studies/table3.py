"""Table 3 and Figure 1: ResNet-18 on CIFAR-10, a learned rule against the tuned panel.

The rule is learned on a ResNet-18 with a sixteenth of the filters; see :mod:`transfer`. The paper's Symbolic L2O was
learned on ResNet-18; here it stands in Figure 5 only.

    OMP_NUM_THREADS=1 python studies/table3.py --size cpu --jobs 2
"""

from study import begin
from transfer import EPOCH, main, sizes

NARROW = {"width": 4, "batch_size": 128, "sample": 1_000, "horizon": EPOCH}
SIZES = sizes(
    "resnet18",
    paper={"learned on": NARROW, "compared on": [{**NARROW, "width": 64, "horizon": 20 * EPOCH, "sample": 5_000}]},
    cpu={"learned on": NARROW, "compared on": [{**NARROW, "width": 16, "precision": "bfloat16"}]},
)
ALWAYS = [
    "The rule is learned on a sixteenth of the width, for one epoch, and nothing of it is tuned after that.",
    "Every opponent is tuned on the network that it is compared on.",
]
NOTES = {
    "paper": ["The paper's text does not give the number of epochs; here they are 20.", *ALWAYS],
    "cpu": [
        "ResNet-18 with a quarter of the filters (0.7M parameters), one epoch in batches of 128.",
        "The forward pass of the comparison is in bfloat16; parameters, gradients and states are in float32.",
        *ALWAYS,
    ],
}

if __name__ == "__main__":
    main(begin("table3", "Table 3", "ResNet-18 on CIFAR-10", SIZES, NOTES))
