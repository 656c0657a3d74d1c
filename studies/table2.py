"""Table 2: test accuracy of the NOS-RL ConvNet on CIFAR-10, a learned rule against the tuned panel.

The rule is learned on the ConvNet with a quarter of its filters, for one epoch; see :mod:`transfer`. ENOS's rule, the
paper's eleventh, is left out: no published form of it could be found.

    OMP_NUM_THREADS=1 python studies/table2.py --size cpu --jobs 2
"""

from study import begin
from transfer import EPOCH, main, sizes

NARROW = {"width": 8, "batch_size": 128, "sample": 1_000, "horizon": EPOCH}
SIZES = sizes(
    "convnet",
    paper={"learned on": NARROW, "compared on": [{**NARROW, "width": 32, "horizon": 10 * EPOCH, "sample": 5_000}]},
    cpu={
        "learned on": NARROW,
        "compared on": [{**NARROW, "width": 32}, {**NARROW, "horizon": 5 * EPOCH}],
    },
)
ALWAYS = [
    "The rule is learned on a quarter of the width, for one epoch, and nothing of it is tuned after that.",
    "Every opponent is tuned on the network that it is compared on; the paper does not say that its baselines were.",
    "ENOS's conv2 has no published form that could be found, so it is not here.",
]
NOTES = {
    "paper": ["The paper's text does not give the number of epochs; here they are 10.", *ALWAYS],
    "cpu": [
        "The paper's ConvNet for one epoch, and a quarter of its width for five, in batches of 128.",
        *ALWAYS,
        "The opponents were tuned by an earlier search, which spent half of its 16 trainings on constant rates: they"
        " can do better.",
    ],
}

if __name__ == "__main__":
    main(begin("table2", "Table 2", "a ConvNet on CIFAR-10", SIZES, NOTES))
