// Command any is the app of the compose corpus: one static program that plays web
// servers, databases, workers, init jobs and a small shell, so that a compose file
// of any shape runs with one image and no download.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	args := os.Args[1:]
	if filepath.Base(os.Args[0]) == "sh" {
		args = append([]string{"sh"}, args...)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx, args)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const usage = `usage: any COMMAND
serve [-slow 2s] [-need URL] [-file FILE] PORT...  HTTP on every port
tcp PORT                            a line of text for whoever connects
gate CONF PORT URL                  a proxy that wants the bearer token=... of CONF
get URL                             exit 0 when it answers 200
once FILE TEXT                      write a file and end
sh -c "COMMAND [&& COMMAND] [|| COMMAND]"
sleep DURATION|infinity, echo TEXT, exit N`

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	switch a := args[1:]; args[0] {
	case "serve":
		return serve(ctx, a)
	case "tcp":
		return tcp(ctx, a)
	case "gate":
		return gate(ctx, a)
	case "get":
		_, err := get(ctx, http.DefaultClient, strings.Join(a, ""))
		return err
	case "once":
		if len(a) != 2 {
			return errors.New(usage)
		}
		return write(a[0], a[1])
	case "sh":
		return shell(ctx, a)
	case "echo":
		fmt.Println(strings.Join(a, " "))
		return nil
	case "exit":
		if len(a) > 0 && a[0] != "0" {
			return fmt.Errorf("exit %s", a[0])
		}
		return nil
	case "sleep":
		return sleep(ctx, strings.Join(a, ""))
	}
	return fmt.Errorf("%q is no command\n%s", args[0], usage)
}

func sleep(ctx context.Context, s string) error {
	d, err := time.ParseDuration(s)
	if s == "infinity" {
		d, err = 1<<62, nil
	}
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	return ctx.Err()
}

func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func get(ctx context.Context, c *http.Client, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	res, err := c.Do(req)
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

// shell runs the little that compose files ask of a shell.
func shell(ctx context.Context, a []string) error {
	if len(a) < 2 || a[0] != "-c" {
		return errors.New(usage)
	}
	var err error
	for _, alternative := range strings.Split(a[1], "||") {
		for _, command := range strings.Split(alternative, "&&") {
			words := fields(command)
			if len(words) > 0 && (words[0] == "exec" || words[0] == "/app") {
				words = words[1:]
			}
			if err = run(ctx, words); err != nil {
				break
			}
		}
		if err == nil {
			return nil
		}
	}
	return err
}

// fields splits at spaces that are in no quotes.
func fields(s string) []string {
	var out []string
	var word strings.Builder
	quote, open := rune(0), false
	for _, r := range s {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, open = r, true
		case quote == 0 && (r == ' ' || r == '\n' || r == '\t'):
			if open {
				out = append(out, word.String())
			}
			word.Reset()
			open = false
		default:
			word.WriteRune(r)
			open = true
		}
	}
	if open {
		out = append(out, word.String())
	}
	return out
}

func tcp(ctx context.Context, a []string) error {
	if len(a) != 1 {
		return errors.New(usage)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", ":"+a[0])
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	for {
		c, err := l.Accept()
		if err != nil {
			return ctx.Err()
		}
		go func() {
			defer c.Close()
			line, _ := bufio.NewReader(io.LimitReader(c, 1<<10)).ReadString('\n')
			_, _ = fmt.Fprintf(c, "tcp says %s", line)
		}()
	}
}

// about is what GET / tells.
func about(args []string) any {
	wd, _ := os.Getwd()
	host, _ := os.Hostname()
	return map[string]any{"args": args, "cwd": wd, "host": host, "uid": os.Getuid()}
}

func say(w http.ResponseWriter, text string, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	_, _ = io.WriteString(w, text)
}

func handler(args []string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(about(args)) })
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { say(w, "ok", nil) })
	mux.HandleFunc("GET /env/{name}", func(w http.ResponseWriter, r *http.Request) {
		v, set := os.LookupEnv(r.PathValue("name"))
		say(w, fmt.Sprintf("%v %s", set, v), nil)
	})
	mux.HandleFunc("GET /file", func(w http.ResponseWriter, r *http.Request) {
		b, err := os.ReadFile(r.FormValue("path"))
		say(w, string(b), err)
	})
	mux.HandleFunc("GET /mode", func(w http.ResponseWriter, r *http.Request) {
		i, err := os.Stat(r.FormValue("path"))
		if err != nil {
			say(w, "", err)
			return
		}
		say(w, i.Mode().String(), nil)
	})
	mux.HandleFunc("PUT /file", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err == nil {
			err = write(r.FormValue("path"), string(b))
		}
		say(w, "", err)
	})
	// fetch asks another service by its name, or a unix socket.
	mux.HandleFunc("GET /fetch", func(w http.ResponseWriter, r *http.Request) {
		c := &http.Client{}
		if sock := r.FormValue("unix"); sock != "" {
			c.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", sock)
			}}
		}
		text, err := get(r.Context(), c, r.FormValue("url"))
		say(w, text, err)
	})
	return mux
}

func serve(ctx context.Context, a []string) error {
	all := a
	for len(a) > 1 && strings.HasPrefix(a[0], "-") {
		switch a[0] {
		case "-slow":
			if err := sleep(ctx, a[1]); err != nil {
				return err
			}
		case "-need": // what it depends on must be there now: nothing is tried again
			if _, err := get(ctx, http.DefaultClient, a[1]); err != nil {
				return fmt.Errorf("what this service depends on is not there: %w", err)
			}
		case "-file":
			if _, err := os.Stat(a[1]); err != nil {
				return fmt.Errorf("what this service depends on is not there: %w", err)
			}
		default:
			return errors.New(usage)
		}
		a = a[2:]
	}
	if len(a) == 0 {
		return errors.New(usage)
	}
	return listen(ctx, a, handler(all))
}

func listen(ctx context.Context, ports []string, h http.Handler) error {
	errc := make(chan error, len(ports))
	for _, p := range ports {
		s := &http.Server{Addr: ":" + p, Handler: h, ReadHeaderTimeout: 10 * time.Second}
		context.AfterFunc(ctx, func() { _ = s.Close() })
		go func() { errc <- s.ListenAndServe() }()
	}
	fmt.Println("listening on", strings.Join(ports, " "))
	err := <-errc
	if ctx.Err() != nil {
		return ctx.Err() // main knows that it was asked to end
	}
	return err
}

func gate(ctx context.Context, a []string) error {
	if len(a) != 3 {
		return errors.New(usage)
	}
	b, err := os.ReadFile(a[0])
	if err != nil {
		return err
	}
	_, token, _ := strings.Cut(strings.TrimSpace(string(b)), "token=")
	return listen(ctx, a[1:2], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if token == "" || r.Header.Get("Authorization") != "Bearer "+token {
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		text, err := get(r.Context(), http.DefaultClient, a[2]+r.URL.Path)
		say(w, text, err)
	}))
}
