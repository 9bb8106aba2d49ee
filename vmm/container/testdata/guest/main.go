// Command guest is the smallest guest for the driver's tests: PID 1 of a container
// without anything else in it.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	shared = "/run/phala/host-shared"
	run    = "/run/phala/vm"
	data   = "/var/lib/phala"
)

func main() {
	fmt.Println("guest: hello, console")
	fmt.Fprintln(os.Stderr, "guest: hello, stderr")
	compose, err := os.ReadFile(shared + "/app-compose.json")
	if err != nil {
		fmt.Println("guest:", err)
		os.Exit(3)
	}
	boots, _ := os.ReadFile(data + "/boots")
	if err := os.WriteFile(data+"/boots", append(boots, 'x'), 0o600); err != nil {
		fmt.Println("guest:", err)
		os.Exit(4)
	}
	if strings.Contains(string(compose), "exit-now") {
		os.Exit(7)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		if !strings.Contains(string(compose), "stubborn") {
			os.Exit(0)
		}
	}()
	_ = os.Remove(run + "/guest.sock")
	ln, err := net.Listen("unix", run+"/guest.sock")
	if err != nil {
		fmt.Println("guest:", err)
		os.Exit(5)
	}
	go func() { _ = http.ListenAndServe(":80", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})) }()
	mux := http.NewServeMux()
	mux.HandleFunc("/facts", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(facts()) })
	mux.HandleFunc("/dial", func(w http.ResponseWriter, r *http.Request) {
		c, err := net.DialTimeout("tcp", r.URL.Query().Get("addr"), time.Second)
		if err != nil {
			fmt.Fprint(w, err)
			return
		}
		_ = c.Close()
		fmt.Fprint(w, "open")
	})
	fmt.Println("guest:", http.Serve(ln, mux))
}

func facts() map[string]string {
	f := map[string]string{}
	b, _ := os.ReadFile(data + "/boots")
	f["boots"] = string(b)
	f["pid"] = fmt.Sprint(os.Getpid())
	f["hostname"], _ = os.Hostname()
	f["env"] = strings.Join(os.Environ(), "\n")
	f["sharedWrite"] = fmt.Sprint(os.WriteFile(shared+"/x", nil, 0o600))
	f["runWrite"] = fmt.Sprint(os.WriteFile(run+"/x", nil, 0o600))
	for _, p := range []string{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"} {
		if b, err := os.ReadFile(p); err == nil {
			f["memory"] = strings.TrimSpace(string(b))
		}
	}
	for _, p := range []string{"/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/pids.max"} {
		if b, err := os.ReadFile(p); err == nil {
			f["pids"] = strings.TrimSpace(string(b))
		}
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() {
			f["ip"] = n.IP.String()
		}
	}
	// What the guest agent does before dockerd: see guestapi.
	f["remount"] = "ok"
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*")
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		dirs = []string{"/sys/fs/cgroup"}
	}
	for _, d := range dirs {
		var st syscall.Statfs_t
		if syscall.Statfs(d, &st) != nil || (st.Type != 0x27e0eb && st.Type != 0x63677270) {
			continue
		}
		const flags = syscall.MS_REMOUNT | syscall.MS_BIND | syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC
		if err := syscall.Mount("", d, "", flags, ""); err != nil {
			f["remount"] = d + ": " + err.Error()
			continue
		}
		if err := os.MkdirAll(d+"/inner", 0o755); err != nil {
			f["remount"] = err.Error()
		}
	}
	return f
}
