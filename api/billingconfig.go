package api

import (
	"fmt"
	"slices"
	"time"

	"github.com/confidential-cloud/phala/api/billing"
	"github.com/confidential-cloud/phala/internal/config"
)

// BillingConfig is what things cost and what workspaces may have. Amounts are decimal
// text, exact to a millionth of the currency.
type BillingConfig struct {
	Currency string `toml:"currency"`
	// VCPUHour and MemoryGBHour are the price of sizes that are no instance type.
	VCPUHour     string `toml:"vcpu_hour"`
	MemoryGBHour string `toml:"memory_gb_hour"`
	// DiskGBHour is the price of disk, of stopped CVMs too.
	DiskGBHour string `toml:"disk_gb_hour"`
	// DefaultTier is the tier of workspaces that were given none.
	DefaultTier string           `toml:"default_tier"`
	Tiers       []TierConfig     `toml:"tier"`
	Suspension  SuspensionConfig `toml:"suspension"`
}

// TierConfig is what a workspace may have; -1 is no limit, and what is not there is 0.
type TierConfig struct {
	Name         string `toml:"name"`
	CVMs         int    `toml:"cvms"`
	VCPU         int    `toml:"vcpu"`
	MemoryMB     int    `toml:"memory_mb"`
	DiskGB       int    `toml:"disk_gb"`
	DiskGBPerCVM int    `toml:"disk_gb_per_cvm"`
	GPUs         int    `toml:"gpus"`
}

// SuspensionConfig says what becomes of workspaces whose balance ends. Without
// Enforce nothing does: prices are shown and usage is metered, and nobody is stopped.
type SuspensionConfig struct {
	Enforce bool `toml:"enforce"`
	// WarnAt is the balance below which the account says "warned".
	WarnAt string `toml:"warn_at"`
	// Grace is from a balance of zero until the workspace's CVMs are stopped.
	Grace config.Duration `toml:"grace"`
	// DeleteAfterDays is from there until they are deleted with their disks; 0 is never.
	DeleteAfterDays int `toml:"delete_after_days"`
}

// DefaultBilling has the public cloud's prices and tiers, and stops nobody.
func DefaultBilling() BillingConfig {
	return BillingConfig{
		Currency: "USD", VCPUHour: "0.029", MemoryGBHour: "0.0145", DiskGBHour: "0.000139", DefaultTier: tier,
		Tiers: []TierConfig{
			{tier, -1, -1, -1, -1, -1, -1},
			{"free", 1, 2, 4096, 40, 40, 0},
			{"tier-1", 8, 16, 32768, 160, 80, 1},
			{"tier-2", 16, 32, 65536, 1024, 256, 8},
			{"enterprise", -1, -1, -1, -1, -1, -1},
		},
		Suspension: SuspensionConfig{WarnAt: "5", Grace: config.Duration(72 * time.Hour)},
	}
}

// Bounds of prices an hour, so that no sum overflows.
const (
	maxHourly     billing.Micro = 10_000_000_000 // of an instance type
	maxHourlyUnit billing.Micro = 1_000_000      // of a vCPU, a GB memory, a GB disk
)

func (c Config) validateBilling() (errs []error) {
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	price := func(what, text string, most billing.Micro) {
		m, err := billing.ParseMicro(text)
		if err == nil && (m < 0 || m > most) {
			err = fmt.Errorf("want 0 to %s an hour", most)
		}
		if err != nil {
			bad("%s: %w", what, err)
		}
	}
	b := c.Billing
	if len(b.Currency) != 3 {
		bad("billing.currency: %q is not a currency's three letters", b.Currency)
	}
	price("billing.vcpu_hour", b.VCPUHour, maxHourlyUnit)
	price("billing.memory_gb_hour", b.MemoryGBHour, maxHourlyUnit)
	price("billing.disk_gb_hour", b.DiskGBHour, maxHourlyUnit)
	for i, t := range c.InstanceTypes {
		price(fmt.Sprintf("instance_type[%d].hourly_rate", i), t.HourlyRate, maxHourly)
	}
	if _, err := billing.ParseMicro(b.Suspension.WarnAt); err != nil {
		bad("billing.suspension.warn_at: %w", err)
	}
	if b.Suspension.Grace < 0 || b.Suspension.DeleteAfterDays < 0 {
		bad("billing.suspension: grace and delete_after_days are not below zero")
	}
	seen := map[string]bool{}
	for i, t := range b.Tiers {
		if t.Name == "" || seen[t.Name] {
			bad("billing.tier[%d]: the name %q is missing or appears twice", i, t.Name)
		}
		seen[t.Name] = true
		if slices.Min([]int{t.CVMs, t.VCPU, t.MemoryMB, t.DiskGB, t.DiskGBPerCVM, t.GPUs}) < billing.Unlimited {
			bad("billing.tier[%d]: a limit is 0 or more, or -1 for none", i)
		}
	}
	if !seen[b.DefaultTier] {
		bad("billing.default_tier: there is no tier %q", b.DefaultTier)
	}
	return errs
}

// amount reads what Validate has read before.
func amount(text string) billing.Micro {
	m, _ := billing.ParseMicro(text)
	return m
}

// prices is the config's price list.
func (c Config) prices() billing.Prices {
	b := c.Billing
	p := billing.Prices{Currency: b.Currency, Types: map[string]billing.Micro{}, VCPU: amount(b.VCPUHour), MemoryGB: amount(b.MemoryGBHour), DiskGB: amount(b.DiskGBHour)}
	for _, t := range c.InstanceTypes {
		p.Types[t.ID] = amount(t.HourlyRate)
	}
	return p
}

func (c Config) policy() billing.Policy {
	s := c.Billing.Suspension
	return billing.Policy{Enforce: s.Enforce, WarnAt: amount(s.WarnAt), Grace: time.Duration(s.Grace), DeleteAfter: time.Duration(s.DeleteAfterDays) * 24 * time.Hour}
}

// tier finds a tier; "" is the default one. A tier that is not in the config any more
// allows nothing new.
func (b BillingConfig) tier(name string) (string, billing.Limits) {
	if name == "" {
		name = b.DefaultTier
	}
	for _, t := range b.Tiers {
		if t.Name == name {
			return name, billing.Limits{CVMs: t.CVMs, VCPU: t.VCPU, MemoryMB: t.MemoryMB, DiskGB: t.DiskGB, DiskGBPerCVM: t.DiskGBPerCVM, GPUs: t.GPUs}
		}
	}
	return name, billing.Limits{}
}
