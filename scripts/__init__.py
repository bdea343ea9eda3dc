"""What people run who work on Martlet; each program says what it does."""
