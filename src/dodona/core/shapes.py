"""The letters of shapes, stated once, and short names for NumPy arrays.

B batch, T time or tokens, V vocabulary, G group, S states, A actions, L feasible state-action
pairs, K keypoints, N boxes, C classes, D features, H W image.
"""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.integer]
BoolArray = NDArray[np.bool_]
