"""What a dataset is worth: scales, training, tasks, metrics, results."""
