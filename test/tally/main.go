// Command tally reads `go test -json`, shows what failed and what was skipped and
// why, and closes with the line "N passed, N failed, N skipped".
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

type event struct {
	Action, Package, Test, Output, ImportPath, FailedBuild string
	Elapsed                                                float64
}

func main() {
	out := map[string][]string{}
	var passed, failed, skipped int
	var slow []string
	s := bufio.NewScanner(os.Stdin)
	s.Buffer(nil, 64<<20) // a test may print a long line; a scan that stops early would count too little
	for s.Scan() {
		var e event
		if json.Unmarshal(s.Bytes(), &e) != nil {
			continue
		}
		key := e.Package + e.ImportPath + " " + e.Test
		name := strings.TrimPrefix(key, "github.com/confidential-cloud/phala/")
		switch e.Action {
		case "output", "build-output":
			out[key] = append(out[key], e.Output)
		case "pass":
			if e.Test != "" {
				passed++
				if e.Elapsed > 20 && !strings.Contains(e.Test, "/") {
					slow = append(slow, fmt.Sprintf("%6.1f s  %s", e.Elapsed, name))
				}
			}
			delete(out, key)
		case "skip":
			if e.Test != "" {
				skipped++
				fmt.Printf("SKIP %s\n%s", name, reason(out[key]))
			}
			delete(out, key)
		case "fail", "build-fail":
			if e.Test != "" || e.FailedBuild != "" || e.Action == "build-fail" || len(out[key]) > 2 {
				if e.Test != "" || e.Action == "build-fail" {
					failed++
				}
				fmt.Printf("FAIL %s\n%s\n", name, strings.Join(tail(out[key], 400), ""))
			}
			if e.Test == "" && e.Action == "fail" && failed == 0 {
				failed++ // a package that failed without a failing test: a crash or a timeout
			}
			delete(out, key)
		}
	}
	if err := s.Err(); err != nil {
		failed++
		fmt.Println("FAIL reading the tests' output:", err)
	}
	for _, line := range slow {
		fmt.Println("slow", line)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if failed > 0 || passed == 0 {
		os.Exit(1)
	}
}

func tail(s []string, n int) []string {
	if len(s) > n {
		return s[len(s)-n:]
	}
	return s
}

func reason(lines []string) string {
	var b strings.Builder
	for _, l := range lines {
		if !strings.HasPrefix(strings.TrimSpace(l), "===") && !strings.HasPrefix(strings.TrimSpace(l), "---") {
			b.WriteString(l)
		}
	}
	return b.String()
}
