"""How coarsely the graphs of a model decide the class of pixels: the option `decision`."""

DECISIONS = {'full': 1, 'half': 2, 'quarter': 4}  # sides of the image are so many times those of the mask
