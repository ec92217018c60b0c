"""
`beexformer report`: the paper's Tables 2 and 3 and Figures 3 to 6, measured anew beside baselines.

Sees `model` and is seen by nobody but the command line.
"""
