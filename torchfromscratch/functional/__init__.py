"""torch.nn.functional's names and signatures, computed by the hand-written Functions.

import torchfromscratch.functional as F
"""

from torchfromscratch.functional.activation import *
from torchfromscratch.functional.attention import *
from torchfromscratch.functional.convolution import *
from torchfromscratch.functional.dropout import *
from torchfromscratch.functional.embedding import *
from torchfromscratch.functional.linear import *
from torchfromscratch.functional.loss import *
from torchfromscratch.functional.normalization import *
from torchfromscratch.functional.padding import *
from torchfromscratch.functional.pooling import *
from torchfromscratch.functional.recurrent import *
from torchfromscratch.functional.resizing import *
from torchfromscratch.functional.unfold import *
