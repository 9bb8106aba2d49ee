// Command phala-devcloud runs the whole cloud on one machine, for development.
package main

import (
	"github.com/confidential-cloud/phala/devcloud"
	"github.com/confidential-cloud/phala/internal/run"
)

func main() { run.Main(devcloud.Main) }
