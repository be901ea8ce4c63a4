"""Growth by seeds beside published methods: TINY and GradMax, as the library ``gromo`` has them.

All of them begin with the same thin network, train on the same data with the same optimiser and
rates for as many epochs, and end with about as many parameters. Ours adds branches beside its
layers or blocks, once, by the heuristic; theirs add neurons to hidden layers, or channels inside
residual blocks, a few after each of several epochs, as statistics of gradients over the training
data tell. A network of that size from scratch is beside them.

Verbockhaven et al. 2024 (TINY, arXiv:2405.19816); Evci et al. 2022 (GradMax, arXiv:2201.05125).
"""
