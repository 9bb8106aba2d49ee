package wgnet

import (
	"bufio"
	"encoding/hex"
	"io"
	"strconv"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// handshakes reads the last handshake of every peer from the device's UAPI dump.
// The dump holds the private key: it goes through a pipe, line by line, and no
// line but the two that are wanted is kept.
func (n *Net) handshakes() map[device.NoisePublicKey]time.Time {
	pr, pw := io.Pipe()
	go func() { _ = pw.CloseWithError(n.dev.IpcGetOperation(pw)) }()
	defer pr.Close()
	out := map[device.NoisePublicKey]time.Time{}
	var cur device.NoisePublicKey
	var sec int64
	for s := bufio.NewScanner(pr); s.Scan(); {
		k, v, _ := strings.Cut(s.Text(), "=")
		switch k {
		case "public_key":
			b, err := hex.DecodeString(v)
			if err != nil || len(b) != KeySize {
				continue
			}
			cur = device.NoisePublicKey(b)
		case "last_handshake_time_sec":
			sec, _ = strconv.ParseInt(v, 10, 64)
		case "last_handshake_time_nsec":
			nsec, _ := strconv.ParseInt(v, 10, 64)
			if sec != 0 || nsec != 0 {
				out[cur] = time.Unix(sec, nsec)
			}
		}
	}
	return out
}
