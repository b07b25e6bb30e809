"""Problems in one space dimension and time."""
