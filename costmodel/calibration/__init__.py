"""Calibration: kernel classes fitted to measured points, with their error on points that were not fitted."""
