package cloudapi

import (
	"context"
	"io"
	"net/url"
	"time"
)

// MeteredUsage is one record of GET /apps/{app_id}/usage.
type MeteredUsage struct {
	InstanceID      string  `json:"instance_id"` // the CVM's uuid
	ProjectID       int64   `json:"project_id"`
	TeamID          int64   `json:"team_id"`
	Timestamp       string  `json:"timestamp"`
	EventType       string  `json:"event_type"`
	Cost            float64 `json:"cost"`
	Details         *string `json:"details" doc:"JSON: rate, size, and whether it goes on"`
	UsageType       string  `json:"usage_type" doc:"compute or storage"`
	BillingStart    string  `json:"billing_start"`
	BillingEnd      string  `json:"billing_end"`
	DurationMinutes float64 `json:"duration_minutes"`
	BillingKey      string  `json:"billing_key"`
	BillingHour     string  `json:"billing_hour"`
	BillingDay      string  `json:"billing_day"`
}

// AppUsage is the answer of GET /apps/{app_id}/usage.
type AppUsage struct {
	Usage     []MeteredUsage `json:"usage"`
	Total     int            `json:"total" doc:"records in this answer"`
	TotalCost float64        `json:"total_cost" doc:"sum of the records in this answer"`
}

// UsageItem is what one CVM used at one rate (ours).
type UsageItem struct {
	CVMID   string `json:"cvm_id"` // uuid
	Name    string `json:"name"`
	AppID   string `json:"app_id"`
	Kind    string `json:"kind" doc:"compute or storage"`
	What    string `json:"what" doc:"the size"`
	Seconds string `json:"seconds" doc:"decimal, exact to a millisecond"`
	Rate    string `json:"hourly_rate"`
	Amount  string `json:"amount"`
	Running bool   `json:"running" doc:"it goes on"`
}

// Usage is the answer of GET /workspace/usage (ours). Amounts are decimal text.
type Usage struct {
	From     time.Time   `json:"from"`
	To       time.Time   `json:"to"`
	Currency string      `json:"currency"`
	Items    []UsageItem `json:"items"`
	Total    string      `json:"total"`
}

// Balance is a workspace's money (ours).
type Balance struct {
	Workspace string     `json:"workspace"`
	Currency  string     `json:"currency"`
	Balance   string     `json:"balance" doc:"what was paid and is left"`
	Granted   string     `json:"granted_balance" doc:"what was given and is left; spent first"`
	Total     string     `json:"total" doc:"both; below zero it is owed"`
	Accruing  string     `json:"accruing" doc:"used and taken into account here, but not in the ledger yet"`
	HourlyNow string     `json:"hourly_now" doc:"what an hour costs as things are"`
	Tier      string     `json:"tier"`
	PostPaid  bool       `json:"is_post_paid"`
	State     string     `json:"state" enum:"active,warned,empty,suspended,abandoned"`
	Since     *time.Time `json:"since"`
	Enforced  bool       `json:"enforced" doc:"false: this cloud suspends nobody"`
	AsOf      time.Time  `json:"as_of"`
}

// LedgerLine is one line of a workspace's ledger (ours).
type LedgerLine struct {
	ID     int64     `json:"id"`
	Kind   string    `json:"kind" doc:"compute, storage, credit, grant, correction"`
	Amount string    `json:"amount" doc:"below zero for usage"`
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	CVMID  string    `json:"cvm_id,omitempty"`
	Name   string    `json:"name,omitempty"`
	AppID  string    `json:"app_id,omitempty"`
	Rate   string    `json:"hourly_rate,omitempty"`
	Event  int64     `json:"event,omitempty" doc:"seq of the event that began it"`
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by,omitempty"`
}

// LedgerCheck compares a ledger with the events it comes from (ours).
type LedgerCheck struct {
	Agrees   bool     `json:"agrees"`
	CVMs     int      `json:"cvms"`
	Lines    int      `json:"lines"`
	Problems []string `json:"problems"`
}

// Invoice is a month (ours); Status is draft until nothing can come to it any more.
type Invoice struct {
	Month       string      `json:"month"` // 2026-01
	Number      string      `json:"number"`
	Workspace   string      `json:"workspace"`
	Name        string      `json:"workspace_name"`
	PeriodStart time.Time   `json:"period_start"`
	PeriodEnd   time.Time   `json:"period_end"`
	Status      string      `json:"status" enum:"draft,final"`
	Currency    string      `json:"currency"`
	Items       []UsageItem `json:"items"`
	Total       string      `json:"total"`
	// Payments are what came in during the month.
	Payments []LedgerLine `json:"payments"`
	Opening  string       `json:"opening_balance"`
	Closing  string       `json:"closing_balance"`
}

// InvoiceItem is a row of the list of invoices (ours).
type InvoiceItem struct {
	Month  string `json:"month"`
	Number string `json:"number"`
	Status string `json:"status" enum:"draft,final"`
	Total  string `json:"total"`
}

// Invoices are the months, newest first (ours).
type Invoices struct {
	Currency string        `json:"currency"`
	Items    []InvoiceItem `json:"items"`
}

// Money is what the operator writes into a workspace's ledger (ours).
type Money struct {
	Kind   string `json:"kind" enum:"credit,grant,correction" doc:"paid, given, or a correction of what was paid"`
	Amount string `json:"amount" maxLength:"32" doc:"decimal; above zero, but for corrections"`
	Reason string `json:"reason" minLength:"1" maxLength:"200"`
	Key    string `json:"idempotency_key" minLength:"8" maxLength:"100" doc:"the same key writes the same line once, for ever"`
}

// Terms are how a workspace pays and what it may have (ours).
type Terms struct {
	Tier     *string `json:"tier,omitempty" required:"false" nullable:"true" maxLength:"64"`
	PostPaid *bool   `json:"is_post_paid,omitempty" required:"false" nullable:"true"`
}

// Balance reads the workspace's money.
func (c *Client) Balance(ctx context.Context) (out Balance, err error) {
	return out, c.Do(ctx, "GET", "/workspace/balance", nil, &out)
}

// Usage reads what the workspace used between two times (dates or RFC 3339; "" is the
// server's default).
func (c *Client) Usage(ctx context.Context, from, to string) (out Usage, err error) {
	q := url.Values{}
	if from != "" {
		q.Set("start_date", from)
	}
	if to != "" {
		q.Set("end_date", to)
	}
	return out, c.Do(ctx, "GET", "/workspace/usage?"+q.Encode(), nil, &out)
}

// Invoices lists the months.
func (c *Client) Invoices(ctx context.Context) (out Invoices, err error) {
	return out, c.Do(ctx, "GET", "/workspace/invoices", nil, &out)
}

// Invoice reads a month (2026-01).
func (c *Client) Invoice(ctx context.Context, month string) (out Invoice, err error) {
	return out, c.Do(ctx, "GET", "/workspace/invoices/"+seg(month), nil, &out)
}

// InvoiceFile reads a month (2026-01) as a file; form is csv or pdf.
func (c *Client) InvoiceFile(ctx context.Context, month, form string) ([]byte, error) {
	rc, err := c.Stream(ctx, "GET", "/workspace/invoices/"+seg(month)+"/"+seg(form), nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rc.Close() }()
	return io.ReadAll(io.LimitReader(rc, maxBody))
}
