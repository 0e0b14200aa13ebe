"""What stands between a gradient and an update: norms and clips, accumulation, loss scale, schedules, averages, state dtypes."""
