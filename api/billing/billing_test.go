package billing

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 31, 22, 0, 0, 0, time.UTC)

func list() Prices {
	return Prices{Types: map[string]Micro{"tdx.small": 58000}, VCPU: 29000, MemoryGB: 14500, DiskGB: 139}
}

func fixed(time.Time) Prices { return list() }

func TestParseMicro(t *testing.T) {
	for s, want := range map[string]Micro{"0": 0, "0.000001": 1, "12.5": 12_500_000, "-3.25": -3_250_000, "1000000000": maxMicro} {
		if m, err := ParseMicro(s); err != nil || m != want {
			t.Errorf("%s: %d, %v", s, m, err)
		}
	}
	for _, s := range []string{"", "-", ".5", "5.", "1e3", "0.0000001", "1,5", "--1", "1000000000.000001", "9223372036854775808", "+1", " 1", "0x1", "١"} {
		if m, err := ParseMicro(s); err == nil {
			t.Errorf("%q is %d", s, m)
		}
	}
}

func FuzzParseMicro(f *testing.F) {
	f.Add("12.50")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMicro(s)
		if err != nil {
			return
		}
		if again, err := ParseMicro(m.String()); err != nil || again != m {
			t.Errorf("%q is %d, printed %s, read %d %v", s, m, m, again, err)
		}
	})
}

// A CVM that ran 3 h 20 m 7 s costs exactly that.
func TestExactly(t *testing.T) {
	small := Size{Type: "tdx.small", VCPU: 1, MemoryMiB: 2048, DiskGB: 20}
	ran := 3*time.Hour + 20*time.Minute + 7*time.Second
	var m Meter
	var out []Segment
	for i, e := range []Event{
		{At: start, Status: "starting"}, {At: start.Add(time.Minute), Status: "running"}, {At: start.Add(time.Minute + ran), Status: "stopping"},
		{At: start.Add(time.Minute + ran + time.Hour), Status: "deleting"}, {At: start.Add(9 * time.Hour), Status: "deleted"},
	} {
		e.Seq, e.Size = int64(i+1), small
		out = append(out, m.Apply(e, fixed)...)
	}
	sum, took := map[string]Micro{}, map[string]time.Duration{}
	for _, s := range out {
		sum[s.Kind] += s.Amount
		took[s.Kind] += s.To.Sub(s.From)
		if !Midnight(s.From).Equal(Midnight(s.To.Add(-1))) {
			t.Errorf("over midnight: %+v", s)
		}
	}
	if took[Compute] != ran || took[Storage] != ran+time.Hour {
		t.Errorf("took %v", took)
	}
	// 58000 * 12007/3600 = 193446.1; 139*20 * 15607/3600 = 12052.07
	if sum[Compute] != 193446 || sum[Storage] != 12052 {
		t.Errorf("cost %v", sum)
	}
	if m.Open() || len(out) != 5 { // each of the two over midnight, storage once more while stopped
		t.Errorf("%d segments: %+v", len(out), out)
	}
}

// Reading in any pieces, with any looks between, costs the same; twice costs once.
func TestAnyPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	words := []string{"creating", "starting", "running", "running", "running", "updating", "stopping", "stopped", "failed", "deleting", "restarting"}
	for range 200 {
		var events []Event
		at := start
		for i := range 30 {
			at = at.Add(time.Duration(r.Int64N(int64(20 * time.Hour)))).Truncate(time.Millisecond)
			events = append(events, Event{Seq: int64(i*3 + 1), At: at, Status: words[r.IntN(len(words))], Size: Size{VCPU: 1 + r.IntN(8), MemoryMiB: 512 * (1 + r.IntN(8)), DiskGB: 20 + r.IntN(80)}})
		}
		end := at.Add(50 * time.Hour)
		var a, b Meter
		var one, two []Segment
		for _, e := range events {
			one = append(one, a.Apply(e, fixed)...)
		}
		one = append(one, a.Until(end, fixed)...)
		for i, e := range events {
			for at := b.At; r.IntN(3) > 0 && at.Before(e.At) && !at.IsZero(); at = b.At.Add(time.Hour) {
				two = append(two, b.Until(at, fixed)...)
				b.At = maxTime(b.At, at)
			}
			two = append(two, b.Apply(e, fixed)...)
			two = append(two, b.Apply(events[r.IntN(i+1)], fixed)...) // again
		}
		two = append(two, b.Until(end, fixed)...)
		if x, y := total(one), total(two); !reflect.DeepEqual(x, y) {
			t.Fatalf("%v, in pieces %v", x, y)
		}
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func total(l []Segment) map[string]Micro {
	out := map[string]Micro{}
	for _, s := range l {
		out[s.Kind] += s.Amount
		out[s.Kind+" ms"] += Micro(s.To.Sub(s.From).Milliseconds())
	}
	return out
}

// A new price counts from the next midnight, and a clock behind takes nothing back.
func TestPricesAndClocks(t *testing.T) {
	change := start.Add(time.Hour)
	prices := func(at time.Time) Prices {
		p := list()
		if !at.Before(change) {
			p.Types["tdx.small"] *= 2
		}
		return p
	}
	var m Meter
	m.Apply(Event{Seq: 1, At: start, Status: "running", Size: Size{Type: "tdx.small"}}, prices)
	out := m.Until(start.Add(4*time.Hour), prices)
	if len(out) != 4 || out[0].Rate != 58000 || out[0].Amount != 116000 || out[2].Rate != 116000 || out[2].Amount != 232000 {
		t.Errorf("%+v", out)
	}
	if out := m.Apply(Event{Seq: 2, At: start, Status: "stopped"}, prices); len(out) != 0 || !m.At.Equal(start.Add(4*time.Hour)) {
		t.Errorf("%+v %v", out, m.At)
	}
}

func TestPolicy(t *testing.T) {
	p := Policy{Enforce: true, WarnAt: 5, Grace: time.Hour, DeleteAfter: 24 * time.Hour}
	at := start
	for i, x := range []struct {
		from    string
		age     time.Duration
		balance Micro
		post    bool
		want    string
	}{
		{Active, 0, 6, false, Active}, {Active, 0, 5, false, Warned}, {Warned, 0, 0, false, Empty}, {Active, 99 * time.Hour, -9, false, Empty},
		{Empty, time.Hour - 1, -1, false, Empty}, {Empty, time.Hour, -1, false, Suspended}, {Suspended, 24*time.Hour - 1, -1, false, Suspended},
		{Suspended, 24 * time.Hour, -1, false, Abandoned}, {Abandoned, 99 * time.Hour, -1, false, Abandoned}, {Suspended, 0, 6, false, Active},
		{Suspended, 0, 1, false, Warned}, {Empty, 99 * time.Hour, -1, true, Active},
	} {
		got, since := p.Next(x.from, at.Add(-x.age), x.balance, x.post, at)
		if got != x.want || got == x.from && !since.Equal(at.Add(-x.age)) || got != x.from && !since.Equal(at) {
			t.Errorf("%d: %s since %v, want %s", i, got, since, x.want)
		}
	}
	if got, _ := (Policy{}).Next(Empty, time.Time{}, -1, false, at); got != Active {
		t.Errorf("no policy gives %s", got)
	}
	p.DeleteAfter = 0
	if got, _ := p.Next(Suspended, time.Time{}, -1, false, at); got != Suspended {
		t.Errorf("never deletes, but %s", got)
	}
}

func TestLimits(t *testing.T) {
	l := Limits{CVMs: 2, VCPU: 4, MemoryMB: 4096, DiskGB: 100, DiskGBPerCVM: 60}
	one := Size{VCPU: 2, MemoryMiB: 2048, DiskGB: 50}
	two := Held{}.Add(one, 2)
	if x := l.Check(two, one); x != nil {
		t.Errorf("%+v", x)
	}
	for want, h := range map[string]Held{"CVMs": {CVMs: 3}, "vCPU": {VCPU: 5}, "MB memory": {MemoryMB: 4097}, "GB disk": {DiskGB: 101}, "GPUs": {GPUs: 1}} {
		if x := l.Check(h, one); x == nil || x.What != want {
			t.Errorf("%s: %+v", want, x)
		}
	}
	if x := l.Check(Held{}, Size{DiskGB: 61}); x == nil || x.What != "GB disk of one CVM" {
		t.Errorf("%+v", x)
	}
	if x := NoLimits().Check(Held{CVMs: 1 << 30}, one); x != nil || !NoLimits().None() {
		t.Errorf("%+v", x)
	}
	if x := (Limits{}).Check(Held{CVMs: 1}, one); x == nil {
		t.Error("no limits given, everything allowed")
	}
}
