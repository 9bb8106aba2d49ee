// Package billing is the arithmetic of money: what a CVM's numbered events cost
// under the price lists of their time, when a workspace without money is suspended,
// and how much it may have. It is pure: no clock, no database; amounts are integers
// in micro-units (millionths of the cloud's currency), so that the same events give
// the same ledger however often and in whatever pieces they are read.
package billing

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Micro is an amount in millionths of the currency's unit.
type Micro int64

// maxMicro keeps sums of amounts far from overflow: a thousand million units.
const maxMicro = 1_000_000_000_000_000

// ErrAmount is returned for text that is no amount.
var ErrAmount = errors.New("want a decimal number with at most 6 digits after the point, like 12.50")

// ParseMicro reads a decimal number; nothing is rounded.
func ParseMicro(s string) (Micro, error) {
	digits, negative := strings.CutPrefix(s, "-")
	whole, frac, point := strings.Cut(digits, ".")
	if whole == "" || len(frac) > 6 || point && frac == "" || strings.ContainsFunc(whole+frac, func(r rune) bool { return r < '0' || r > '9' }) {
		return 0, fmt.Errorf("%q: %w", s, ErrAmount)
	}
	n, err := strconv.ParseInt(whole+frac+strings.Repeat("0", 6-len(frac)), 10, 64)
	if err != nil || n > maxMicro {
		return 0, fmt.Errorf("%q: the number is too large", s)
	}
	if negative {
		n = -n
	}
	return Micro(n), nil
}

// String is the decimal number with at least two digits after the point.
func (m Micro) String() string {
	sign, n := "", int64(m)
	if n < 0 {
		sign, n = "-", -n
	}
	frac := strings.TrimRight(fmt.Sprintf("%06d", n%1_000_000), "0")
	if len(frac) < 2 {
		frac += strings.Repeat("0", 2-len(frac))
	}
	return sign + strconv.FormatInt(n/1_000_000, 10) + "." + frac
}

// Float is for answers whose public shape is a number.
func (m Micro) Float() float64 { return float64(m) / 1e6 }

// MarshalText is the decimal number.
func (m Micro) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads a decimal number.
func (m *Micro) UnmarshalText(b []byte) (err error) {
	*m, err = ParseMicro(string(b))
	return err
}

// Prices is a price list; rates are per hour.
type Prices struct {
	Currency string           `json:"currency"`
	Types    map[string]Micro `json:"types"`          // by instance type
	VCPU     Micro            `json:"vcpu_hour"`      // of a size that is no type
	MemoryGB Micro            `json:"memory_gb_hour"` // the same
	DiskGB   Micro            `json:"disk_gb_hour"`
}

// Size is what a CVM holds.
type Size struct {
	Type      string `json:"instance_type,omitempty"`
	VCPU      int    `json:"vcpu"`
	MemoryMiB int    `json:"memory_mib"`
	DiskGB    int    `json:"disk_gb"`
	GPUs      int    `json:"gpus,omitempty"` // in the price of Type
}

// Rate is what an hour of a kind of usage costs.
func (p Prices) Rate(kind string, s Size) Micro {
	if kind == Storage {
		return p.DiskGB * Micro(s.DiskGB)
	}
	if r, ok := p.Types[s.Type]; ok {
		return r
	}
	return p.VCPU*Micro(s.VCPU) + p.MemoryGB*Micro(s.MemoryMiB)/1024
}
