"""What the processes of all groups share: imported, and the inputs made, once before they are forked."""

import torch

from tests.hostile.cases import cases

torch.set_num_threads(1)  # threads do not survive a fork
cases()
