// Package vm measures how the cloud behaves with many machines, on the driver dry: a
// node with a thousand VMs, a cloud API with ten thousand nodes. It holds tests only:
// `make bench-vm` and `make bench-scale` write their tables into docs/performance.md.
package vm
