"""Planning, training and predicting the arms with nnU-Net."""
