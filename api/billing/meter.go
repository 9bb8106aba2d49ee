package billing

import "time"

// Kinds of usage.
const (
	Compute = "compute" // while a CVM runs
	Storage = "storage" // from the first time it ran until it is deleted
)

// Statuses of a CVM that change what it costs (cloudapi's words).
const (
	running  = "running"
	deleting = "deleting"
	deleted  = "deleted"
)

// Event is one that says what a CVM is.
type Event struct {
	Seq    int64
	At     time.Time
	Status string
	Size   Size
}

// Meter is where the reading of one CVM's events stands. The zero value has read
// nothing.
type Meter struct {
	Seq    int64     `json:"seq"` // of the last event that was read
	At     time.Time `json:"at,omitzero"`
	Status string    `json:"status"`
	Size   Size      `json:"size"`
	Ran    bool      `json:"ran"` // once
	// Rates are those of the segment that is open: of the price list when it began.
	Rates map[string]Micro `json:"rates,omitempty"`
	// Rest is what integer division left over of each kind, in micro-units times
	// milliseconds: it goes into the next segment, so that cutting time costs nothing.
	Rest map[string]int64 `json:"rest,omitempty"`
}

// Segment is a time of usage at one rate.
type Segment struct {
	Kind     string
	Seq      int64 // of the event that opened it
	From, To time.Time
	Size     Size
	Rate     Micro // an hour
	Amount   Micro
}

// Open tells whether time costs something now.
func (m Meter) Open() bool { return m.active(Compute) || m.active(Storage) }

func (m Meter) active(kind string) bool {
	if kind == Compute {
		return m.Status == running
	}
	return m.Ran && m.Status != deleting && m.Status != deleted
}

// Apply reads an event: the segments that end with it. Events that were read before
// change nothing. An event whose clock is behind counts from where the meter stands.
func (m *Meter) Apply(e Event, prices func(at time.Time) Prices) []Segment {
	if e.Seq <= m.Seq {
		return nil
	}
	out := m.Until(e.At, prices)
	if e.At.After(m.At) {
		m.At = e.At
	}
	m.Seq, m.Status, m.Size = e.Seq, e.Status, e.Size
	m.Ran = m.Ran || e.Status == running
	m.price(prices(m.At))
	return out
}

// Until closes what is open at a time, in segments that begin and end within one
// day (UTC), each at the prices of its beginning.
func (m *Meter) Until(to time.Time, prices func(at time.Time) Prices) (out []Segment) {
	for m.Open() && m.At.Before(to) {
		end := Midnight(m.At).AddDate(0, 0, 1)
		if cut := end.After(to); cut {
			end = to
		}
		for _, kind := range []string{Compute, Storage} {
			if !m.active(kind) {
				continue
			}
			s := Segment{Kind: kind, Seq: m.Seq, From: m.At, To: end, Size: m.Size, Rate: m.Rates[kind]}
			s.Amount = m.charge(kind, s.Rate, end.Sub(m.At))
			out = append(out, s)
		}
		m.At = end
		if end.Equal(Midnight(end)) {
			m.price(prices(m.At))
		}
	}
	return out
}

func (m *Meter) price(p Prices) {
	m.Rates = map[string]Micro{}
	for _, kind := range []string{Compute, Storage} {
		if m.active(kind) {
			m.Rates[kind] = p.Rate(kind, m.Size)
		}
	}
}

// charge is rate times time, rounded down, with what the last rounding left.
func (m *Meter) charge(kind string, rate Micro, d time.Duration) Micro {
	const hour = int64(time.Hour / time.Millisecond)
	n := int64(rate)*d.Milliseconds() + m.Rest[kind] // a day at most: fits for rates below 10^11
	if m.Rest == nil {
		m.Rest = map[string]int64{}
	}
	m.Rest[kind] = n % hour
	return Micro(n / hour)
}

// Copy is a meter that may be read on without changing this one.
func (m Meter) Copy() Meter {
	c := m
	c.Rates, c.Rest = map[string]Micro{}, map[string]int64{}
	for k, v := range m.Rates {
		c.Rates[k] = v
	}
	for k, v := range m.Rest {
		c.Rest[k] = v
	}
	return c
}

// Midnight is the beginning of a time's day, UTC.
func Midnight(t time.Time) time.Time {
	y, mo, d := t.UTC().Date()
	return time.Date(y, mo, d, 0, 0, 0, 0, time.UTC)
}
