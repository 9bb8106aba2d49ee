// Package cloud asks the cloud API and the CLI what they make of the corpus of
// compose files.
package cloud
