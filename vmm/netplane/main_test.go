package netplane

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// The tests run in a network namespace of their own: the binary starts itself
// again there. Guests and clients are further copies of it, each in its own
// namespace: a guest holds the tap as a hypervisor would, and moves frames between
// it and a card of its own, behind which is this kernel's IP stack.
const roleEnv = "NETPLANE_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "inside":
		os.Exit(m.Run())
	case "endpoint":
		endpoint()
		return
	}
	if os.Getuid() != 0 {
		os.Exit(m.Run()) // what needs root is skipped
	}
	code := 0
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleEnv+"=inside")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		code = 1
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			fmt.Fprintln(os.Stderr, "SKIPPED: no network namespace:", err)
			code = m.Run()
		}
	}
	os.Exit(code)
}

func isolated(t *testing.T) {
	t.Helper()
	if os.Getenv(roleEnv) != "inside" {
		t.Skip("SKIPPED: needs root and network namespaces")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("SKIPPED: nft is not installed")
	}
}

// peer is a copy of the test in another namespace.
type peer struct {
	t   *testing.T
	pid int
	in  io.WriteCloser
	out *bufio.Scanner
	tap *os.File // a guest's end, to put frames on the wire that no kernel would send
}

type order struct {
	Op   string   `json:"op"`
	Args []string `json:"args"`
}

type result struct {
	Text string `json:"text"`
	Err  string `json:"err"`
}

func newPeer(t *testing.T, mac string, tap *os.File) *peer {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"=endpoint", "MAC="+mac)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	if tap != nil {
		cmd.ExtraFiles = []*os.File{tap}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, pid: cmd.Process.Pid, in: in, out: bufio.NewScanner(out), tap: tap}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	p.must("sh", "ip link set lo up")
	return p
}

func (p *peer) do(op string, args ...string) (string, error) {
	p.t.Helper()
	b, _ := json.Marshal(order{op, args})
	if _, err := p.in.Write(append(b, '\n')); err != nil {
		p.t.Fatal(err)
	}
	if !p.out.Scan() {
		p.t.Fatal("the endpoint ended: ", p.out.Err())
	}
	var r result
	if err := json.Unmarshal(p.out.Bytes(), &r); err != nil {
		p.t.Fatal(err)
	}
	if r.Err != "" {
		return r.Text, errors.New(r.Err)
	}
	return r.Text, nil
}

func (p *peer) must(op string, args ...string) string {
	p.t.Helper()
	s, err := p.do(op, args...)
	if err != nil {
		p.t.Fatalf("%s %v: %v %s", op, args, err, s)
	}
	return strings.TrimSpace(s)
}

// openTap opens a tap as a hypervisor does.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	var req [40]byte
	copy(req[:15], name)
	*(*uint16)(unsafe.Pointer(&req[16])) = unix.IFF_TAP | unix.IFF_NO_PI
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&req))); e != 0 {
		_ = unix.Close(fd)
		return nil, e
	}
	return os.NewFile(uintptr(fd), name), nil
}

// endpoint is the main of a peer.
func endpoint() {
	if mac := os.Getenv("MAC"); mac != "" {
		if err := bridgeCard(mac); err != nil {
			fmt.Fprintln(os.Stderr, "endpoint:", err)
			os.Exit(1)
		}
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var o order
		_ = json.Unmarshal(in.Bytes(), &o)
		var r result
		text, err := obey(o)
		if r.Text = text; err != nil {
			r.Err = err.Error()
		}
		b, _ := json.Marshal(r)
		fmt.Println(string(b))
	}
}

// bridgeCard makes eth0 and joins it to the tap of descriptor 3.
func bridgeCard(mac string) error {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		return err
	}
	card, err := openTap("eth0")
	if err != nil {
		return err
	}
	l, err := netlink.LinkByName("eth0")
	if err == nil {
		err = errors.Join(netlink.LinkSetHardwareAddr(l, hw), netlink.LinkSetUp(l))
	}
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(3, true); err != nil {
		return err
	}
	wire := os.NewFile(3, "wire")
	pump := func(from, to *os.File) {
		buf := make([]byte, 65536)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			_, _ = to.Write(buf[:n])
		}
	}
	go pump(card, wire)
	go pump(wire, card)
	return nil
}

func obey(o order) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	arg := func(i int) string {
		if i < len(o.Args) {
			return o.Args[i]
		}
		return ""
	}
	switch o.Op {
	case "sh":
		out, err := exec.CommandContext(ctx, "/bin/sh", "-c", arg(0)).CombinedOutput()
		return string(out), err
	case "ping":
		return "", ping(ctx, net.ParseIP(arg(0)))
	case "dhcp":
		c, err := nclient4.New("eth0")
		if err != nil {
			return "", err
		}
		defer c.Close()
		lease, err := c.Request(ctx)
		if err != nil {
			return "", err
		}
		ones, _ := lease.ACK.SubnetMask().Size()
		return fmt.Sprintf("%s/%d via %s dns %s", lease.ACK.YourIPAddr, ones, lease.ACK.Router()[0], lease.ACK.DNS()), nil
	case "listen":
		l, err := net.Listen("tcp", arg(0))
		if err != nil {
			return "", err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				_, _ = io.WriteString(c, "hello "+host)
				_ = c.Close()
			}
		}()
		return "", nil
	case "dial":
		d := net.Dialer{Timeout: 10 * time.Second}
		if arg(2) != "" {
			d.Timeout, _ = time.ParseDuration(arg(2))
		}
		if arg(1) != "" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(arg(1))}
		}
		c, err := d.DialContext(ctx, "tcp", arg(0))
		if err != nil {
			return "", err
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		b, err := io.ReadAll(c)
		return string(b), err
	}
	return "", errors.New("unknown order")
}

// ping asks until an answer comes.
func ping(ctx context.Context, to net.IP) error {
	network, proto, kind, reply := "ip4:icmp", 1, icmp.Type(ipv4.ICMPTypeEcho), icmp.Type(ipv4.ICMPTypeEchoReply)
	if to.To4() == nil {
		network, proto, kind, reply = "ip6:ipv6-icmp", 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	c, err := icmp.ListenPacket(network, "")
	if err != nil {
		return err
	}
	defer c.Close()
	msg, err := (&icmp.Message{Type: kind, Body: &icmp.Echo{ID: 7, Seq: 1, Data: []byte("are you there")}}).Marshal(nil)
	if err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for ctx.Err() == nil {
		if _, err := c.WriteTo(msg, &net.IPAddr{IP: to}); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				break
			}
			m, err := icmp.ParseMessage(proto, buf[:n])
			if err == nil && m.Type == reply && from.String() == to.String() {
				return nil
			}
		}
	}
	return errors.New("no answer from " + to.String())
}
