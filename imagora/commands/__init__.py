"""The commands of `imagora`, one module for each. `imagora.cli` loads a module when its command is run."""
