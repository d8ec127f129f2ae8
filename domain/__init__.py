"""The vocabulary of Consilium: frozen values and the error tree. Imports nothing but the standard library."""
