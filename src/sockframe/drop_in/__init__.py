"""Drop-in replacements: the names and the behaviour of what they replace, over sockframe's engine."""
