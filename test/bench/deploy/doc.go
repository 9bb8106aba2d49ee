// Package deploy measures the time from `phala deploy` to the first HTTPS answer that
// is verified, by stage, on the drivers container and qemu, beside `docker compose up`
// of the same file and the same kernel with an empty init; and what a guest's memory
// and images take. It holds tests only: `make bench-deploy` writes their tables into
// docs/performance.md.
package deploy
