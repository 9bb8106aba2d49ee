package cloudapi

import "time"

// WebhookRequest makes a webhook.
type WebhookRequest struct {
	URL    string   `json:"url" maxLength:"2048"`
	Events []string `json:"events" maxItems:"32"`
	Name   *string  `json:"name,omitempty" required:"false" nullable:"true" maxLength:"100"`
	Secret *string  `json:"secret,omitempty" required:"false" nullable:"true" doc:"16 to 256 characters; made when absent"`
}

// WebhookUpdate changes what is not null.
type WebhookUpdate struct {
	URL     *string   `json:"url,omitempty" required:"false" nullable:"true" maxLength:"2048"`
	Events  *[]string `json:"events,omitempty" required:"false" nullable:"true" maxItems:"32"`
	Name    *string   `json:"name,omitempty" required:"false" nullable:"true" maxLength:"100"`
	Enabled *bool     `json:"enabled,omitempty" required:"false" nullable:"true"`
}

// Webhook is one as clients see it; Secret only when it was made, revealed or rotated.
type Webhook struct {
	ID        string    `json:"id"`
	URL       string    `json:"url"`
	Secret    *string   `json:"secret"`
	Events    []string  `json:"events"`
	Name      *string   `json:"name"`
	Enabled   bool      `json:"enabled"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// WebhookDelivery is one delivery.
type WebhookDelivery struct {
	SnowflakeID     int64      `json:"snowflake_id"`
	EventID         string     `json:"event_id"`
	EventType       string     `json:"event_type"`
	Status          string     `json:"status"` // pending, success, failed
	Attempts        int        `json:"attempts"`
	RequestURL      string     `json:"request_url"`
	ResponseStatus  int        `json:"response_status"`
	ErrorMessage    string     `json:"error_message"`
	DurationMS      int64      `json:"duration_ms"`
	CreatedAt       time.Time  `json:"created_at"`
	DeliveredAt     *time.Time `json:"delivered_at"`
	OriginalEventID string     `json:"original_event_id"`
}

// WebhookStats counts finished deliveries.
type WebhookStats struct {
	Total          int        `json:"total"`
	SuccessCount   int        `json:"success_count"`
	FailedCount    int        `json:"failed_count"`
	SuccessRate    float64    `json:"success_rate"` // 0 to 1
	AvgDurationMS  int64      `json:"avg_duration_ms"`
	MaxDurationMS  int64      `json:"max_duration_ms"`
	LastDeliveryAt *time.Time `json:"last_delivery_at"`
}

// HookEvent is the body that is sent. X-Webhook-Signature is "sha256=" and the hex
// HMAC-SHA256, under the secret, of X-Webhook-Timestamp, a dot and these exact bytes.
type HookEvent struct {
	ID        string        `json:"id"`
	Event     string        `json:"event"`
	Version   string        `json:"version"`
	CreatedAt time.Time     `json:"created_at"`
	Workspace HookWorkspace `json:"workspace"`
	Data      any           `json:"data"`
}

// HookAccount is what an event of the workspace's account says.
type HookAccount struct {
	State   string `json:"state"`   // active, warned, empty, suspended or abandoned
	Was     string `json:"was"`     // the same, before
	Balance string `json:"balance"` // of the ledger; what accrues now is not in it
}

// HookWorkspace names the workspace; its id is its slug.
type HookWorkspace struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// HookCVM is what an event says of its CVM.
type HookCVM struct {
	ID          int64  `json:"id"`
	VMUUID      string `json:"vm_uuid"`
	Name        string `json:"name"`
	AppID       string `json:"app_id"`
	InstanceID  string `json:"instance_id,omitempty"`
	Status      string `json:"status"`
	ComposeHash string `json:"compose_hash"`
	Generation  int    `json:"generation"`
	Error       string `json:"error,omitempty"`
}
