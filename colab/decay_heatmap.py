# %% [markdown]
# # The heat map of decoupled weight decay
#
# Trains a small network once for every pair of learning rate α and decay λ, with Adam + L2 and with
# AdamW, and draws the test errors as figure 2 of [Loshchilov & Hutter,
# 2019](https://arxiv.org/abs/1711.05101) does.
#
# The command `tf-decoupled sweep` does the same on larger grids. This one takes under a minute on
# two CPU cores, and is too coarse and too short to decide anything.

# %%
import pathlib

from IPython.display import Image

from tf_decoupled.experiments import grid
from tf_decoupled.experiments.sweep import sweep

# %% [markdown]
# ## The grid
#
# A preset, and what is to differ from it. λ = 0 is the same run in both forms and is computed once.
# The decay of AdamW is the paper's: η_t λ θ, with η_t the schedule's multiplier, not multiplied by
# α.

# %%
settings = grid.preset(
    "quick",
    "adam",
    alphas=(0.001, 0.004, 0.016),
    l2s=(0, 0.0125, 0.05, 0.2),
    weight_decays=(0, 0.00625, 0.025, 0.1),
    epochs=3,
    batch_size=64,
    examples=1500,
    seeds=(0, 1, 2),
)
print(f"{len(settings.cells())} runs")

# %% [markdown]
# ## The runs
#
# One process per core. Each finished run is a line of `heatmap/adam.csv`; the same call again
# computes only what is missing. Then a summary is printed, whose intervals are over the seeds:
# nothing is claimed of a difference whose interval holds 0.

# %%
picture = sweep(settings, pathlib.Path("heatmap"))

# %% [markdown]
# ## The picture
#
# Colour is the test error, the mean of three seeds. The five best cells by validation error are
# circled. The line goes through the best λ of every α. Where it is a diagonal, λ has to be chosen
# anew for each α; where it is upright, the two can be chosen one after the other: that is what the
# paper means by decoupled.

# %%
Image(filename=picture, width=900)

# %% [markdown]
# ## Larger
#
# The cells above, as a command, with more of everything:
#
#     tf-decoupled sweep --optimizer adam                  # some minutes on two cores
#     tf-decoupled sweep --optimizer sgd                   # SGD + L2 against SGDW
#     tf-decoupled sweep --preset standard                 # half an hour; all schedules
