// Command kv is the two-service test app: "kv store" keeps one value on a volume,
// "kv web" shows it together with its environment and an inline config, "kv get
// URL" is the healthcheck of images that hold nothing else.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "store":
		return store("/data/value")
	case len(args) == 1 && args[0] == "web":
		return web()
	case len(args) == 2 && args[0] == "get":
		_, err := get(args[1])
		return err
	}
	return fmt.Errorf("usage: kv store|web|get URL")
}

func get(url string) (string, error) {
	c := &http.Client{Timeout: 3 * time.Second}
	res, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, res.Status)
	}
	return string(b), err
}

func store(path string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /value", func(w http.ResponseWriter, _ *http.Request) {
		b, _ := os.ReadFile(path)
		w.Write(b)
	})
	mux.HandleFunc("PUT /value", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err == nil {
			if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
				err = os.WriteFile(path, b, 0o644)
			}
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	fmt.Println("store listens on 9000")
	return http.ListenAndServe(":9000", mux)
}

// web serves on 8080 (the page) and 8081 (a second published port).
func web() error {
	base := os.Getenv("STORE_URL")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		v, err := get(base + "/value")
		conf, _ := os.ReadFile("/etc/kv.conf")
		fmt.Fprintf(w, "greeting=%s\nsecret_set=%v\nsecret_len=%d\nconfig=%s\nvalue=%s\nerr=%v\n", os.Getenv("GREETING"),
			os.Getenv("SECRET") != "", len(os.Getenv("SECRET")), strings.TrimSpace(string(conf)), v, err)
	})
	mux.HandleFunc("PUT /value", func(w http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), http.MethodPut, base+"/value", r.Body)
		if err == nil {
			var res *http.Response
			if res, err = http.DefaultClient.Do(req); err == nil {
				res.Body.Close()
			}
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	})
	fmt.Println("web listens on 8080 and 8081")
	go func() {
		_ = http.ListenAndServe(":8081", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "second port") }))
	}()
	return http.ListenAndServe(":8080", mux)
}
