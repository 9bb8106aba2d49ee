// Package house holds the import law as tests; there is nothing to import.
package house
