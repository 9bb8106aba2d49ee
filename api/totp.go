package api

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6238's default, which every authenticator app knows
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/confidential-cloud/phala/api/cloudapi"
	"github.com/confidential-cloud/phala/api/store"
)

const (
	totpPeriod  = 30
	totpDigits  = 6
	totpSecret  = 20
	backupCodes = 10
	sealedTOTP  = "totp of user"
)

// totp is RFC 6238's code of a time step.
func totp(secret []byte, step int64) string {
	mac := hmac.New(sha1.New, secret)
	_ = binary.Write(mac, binary.BigEndian, step) // a hash takes all
	sum := mac.Sum(nil)
	v := binary.BigEndian.Uint32(sum[sum[len(sum)-1]&15:]) & 0x7fffffff
	return fmt.Sprintf("%0*d", totpDigits, v%1_000_000)
}

// totpStep finds the step of a code, one before to one after now; 0 is none.
func totpStep(secret []byte, code string, at time.Time) (found int64) {
	now := at.Unix() / totpPeriod
	for step := now - 1; step <= now+1; step++ {
		if subtle.ConstantTimeCompare([]byte(totp(secret, step)), []byte(code)) == 1 {
			found = step
		}
	}
	return found
}

// checkFactor takes a code of the second factor, or a backup code, once.
func (s *Server) checkFactor(ctx context.Context, u store.User, code string) error {
	subject := userID(u.ID)
	if err := s.take(ctx, limitFactor(), subject); err != nil {
		return err
	}
	ok, err := s.useFactor(ctx, u, strings.ReplaceAll(strings.TrimSpace(code), " ", ""))
	if err != nil {
		return err
	}
	if !ok {
		return text(http.StatusForbidden, "the code of the second factor is wrong, or was used already")
	}
	s.forgive(ctx, limitFactor(), subject)
	return nil
}

func (s *Server) useFactor(ctx context.Context, u store.User, code string) (bool, error) {
	if len(u.TOTP) == 0 {
		return false, nil
	}
	if len(code) != totpDigits {
		return s.store.UseBackupCode(ctx, u.ID, backupHash(code))
	}
	secret, err := s.sealer.open(sealedTOTP, u.ID, u.TOTP)
	if err != nil {
		return false, fmt.Errorf("second factor of %s: %w", u.Username, err)
	}
	step := totpStep(secret, code, s.now())
	if step == 0 {
		return false, nil
	}
	return s.store.UseTOTPStep(ctx, u.ID, step)
}

// A backup code has 80 random bits: its plain hash can be kept.
func newBackupCodes() (codes []string, hashes [][32]byte) {
	for range backupCodes {
		b := make([]byte, 10)
		_, _ = rand.Read(b) // never fails
		code := strings.ToLower(base32.StdEncoding.EncodeToString(b))
		code = code[:8] + "-" + code[8:]
		codes, hashes = append(codes, code), append(hashes, backupHash(code))
	}
	return codes, hashes
}

func backupHash(code string) [32]byte {
	return sha256.Sum256([]byte(strings.ToLower(strings.ReplaceAll(code, "-", ""))))
}

func (s *Server) stepUp(ctx context.Context, in *bodyOf[cloudapi.StepUpRequest]) (none, error) {
	p := who(ctx)
	if !p.TOTP {
		return none{}, text(http.StatusForbidden, "set up a second factor first (POST /auth/2fa/setup)")
	}
	if err := s.proveFactor(ctx, in.Body.TOTPCode); err != nil {
		return none{}, err
	}
	return none{}, s.store.StepUp(ctx, p)
}

func (s *Server) proveFactor(ctx context.Context, code string) error {
	u, err := s.store.User(ctx, who(ctx).UserID)
	if err != nil {
		return err
	}
	return s.checkFactor(ctx, u, code)
}

// factorSetup makes a secret; it counts once its first code has come back.
func (s *Server) factorSetup(ctx context.Context, _ *none) (out cloudapi.FactorSetup, err error) {
	p := who(ctx)
	if p.TOTP {
		return out, text(http.StatusConflict, "a second factor is on already: switch it off first")
	}
	secret := make([]byte, totpSecret)
	_, _ = rand.Read(secret) // never fails
	if err := s.store.SetTOTP(ctx, p.UserID, s.sealer.seal(sealedTOTP, p.UserID, secret), false, nil); err != nil {
		return out, err
	}
	out.Secret = base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)
	q := url.Values{"secret": {out.Secret}, "issuer": {"Phala"}}
	out.URI = "otpauth://totp/" + url.PathEscape("Phala:"+p.Username) + "?" + q.Encode()
	return out, nil
}

func (s *Server) factorEnable(ctx context.Context, in *bodyOf[cloudapi.FactorRequest]) (out cloudapi.BackupCodes, err error) {
	p := who(ctx)
	u, err := s.store.User(ctx, p.UserID)
	if err != nil {
		return out, err
	}
	if u.TOTPOn || len(u.TOTP) == 0 {
		return out, text(http.StatusConflict, "there is no second factor to switch on (POST /auth/2fa/setup)")
	}
	if err := s.checkFactor(ctx, u, in.Body.Code); err != nil {
		return out, err
	}
	codes, hashes := newBackupCodes()
	if err := s.store.SetTOTP(ctx, u.ID, u.TOTP, true, hashes); err != nil {
		return out, err
	}
	return cloudapi.BackupCodes{Codes: codes}, s.store.StepUp(ctx, p)
}

func (s *Server) factorDisable(ctx context.Context, in *bodyOf[cloudapi.FactorRequest]) (none, error) {
	if err := s.proveFactor(ctx, in.Body.Code); err != nil {
		return none{}, err
	}
	return none{}, s.store.SetTOTP(ctx, who(ctx).UserID, nil, false, nil)
}

func (s *Server) factorCodes(ctx context.Context, in *bodyOf[cloudapi.FactorRequest]) (out cloudapi.BackupCodes, err error) {
	if !who(ctx).TOTP {
		return out, text(http.StatusForbidden, "set up a second factor first (POST /auth/2fa/setup)")
	}
	if err := s.proveFactor(ctx, in.Body.Code); err != nil {
		return out, err
	}
	codes, hashes := newBackupCodes()
	return cloudapi.BackupCodes{Codes: codes}, s.store.SetBackupCodes(ctx, who(ctx).UserID, hashes)
}
