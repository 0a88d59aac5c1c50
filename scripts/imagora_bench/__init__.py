"""What Imagora costs: ratios against doing without it, measured side by side on one machine."""
