package pool

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holder names the process that has a port, for a person who has to stop it; as
// well as the kernel tells.
func holder(p Port) string {
	inodes := map[string]bool{}
	for _, suffix := range []string{"", "6"} {
		b, _ := os.ReadFile("/proc/net/" + p.Protocol + suffix)
		socketsOf(string(b), p, inodes)
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !strings.HasPrefix(target, "socket:[") || !inodes[strings.TrimSuffix(target[len("socket:["):], "]")] {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		comm, _ := os.ReadFile("/proc/" + pid + "/comm")
		return fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(comm)))
	}
	return "another process"
}

// socketsOf adds the inodes of the listening sockets of a port in /proc/net/tcp or udp.
func socketsOf(table string, p Port, inodes map[string]bool) {
	state := "0A" // listening
	if p.Protocol == "udp" {
		state = "07"
	}
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != state {
			continue
		}
		_, port, _ := strings.Cut(f[1], ":")
		if n, err := strconv.ParseUint(port, 16, 16); err == nil && uint16(n) == p.Number {
			inodes[f[9]] = true
		}
	}
}
