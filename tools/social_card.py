"""Draw nbs/site_assets/card.png, the picture that a link to the website carries: `python tools/social_card.py`."""
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from hwnn.figures import colors, draw_array, use_style
from hwnn.layers.convolution import conv2d, conv2d_backward

image = lambda rows: np.array(rows, dtype=float)[None, :, :, None]
X, W = image([[3, 1, 2], [5, 9, 4], [6, 8, 7]]), np.array([[1., 2], [3, -1]])[:, :, None, None]
Z, ctx = conv2d(X, W, np.zeros((1, 1)), stride=1, pad=0)
dZ = image([[1, 2], [-1, 3]])
dX, dW, _ = conv2d_backward(dZ, ctx)

use_style()
panels = [("X", X[0, :, :, 0], "input"), ("W", W[:, :, 0, 0], "weights"), ("Z", Z[0, :, :, 0], "output"),
          ("dZ", dZ[0, :, :, 0], "gradient"), ("dW", dW[:, :, 0, 0], "gradient"), ("dX", dX[0, :, :, 0], "gradient")]
fig = plt.figure(figsize=(12, 6.3), facecolor="#ffffff")
fig.text(0.06, 0.80, "hwnn", fontsize=58, fontweight="bold", color="#33373d")
fig.text(0.06, 0.70, "Neural networks in plain NumPy: derived, implemented, tested", fontsize=23, color="#5a5f66")
left, size = 0.06, 0.048
for title, A, role in panels:
    width = size*A.shape[1]
    ax = fig.add_axes([left, 0.2 + (3 - A.shape[0])*size, width, A.shape[0]*size*12/6.3])
    draw_array(ax, A, role)
    for text in ax.texts: text.set(fontsize=17, color="#4a4f57")
    ax.set_title(title, fontsize=20, color=colors[role], pad=8)
    left += width + 0.032
fig.savefig(Path(__file__).resolve().parent.parent/"nbs/site_assets/card.png", dpi=100, facecolor="#ffffff", metadata={"Software": None})
