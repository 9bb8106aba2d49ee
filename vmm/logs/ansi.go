package logs

// Stripper removes terminal control sequences (ECMA-48) from a stream, whatever
// pieces it arrives in: a guest's console must not move the reader's cursor, set
// titles or hide lines. It also drops control characters except tab and newline,
// and a carriage return that is not followed by a newline becomes a newline.
// The zero value is ready. It keeps no more than a few bytes.
type Stripper struct {
	state stripState
	cr    bool // a carriage return waits for what follows
}

type stripState byte

const (
	plain        stripState = iota
	escape                  // after ESC
	intermediate            // ESC with intermediate bytes
	control                 // CSI: parameters up to a final byte
	text                    // OSC, DCS, SOS, PM, APC: up to BEL or ESC \
	textEscape              // ESC inside of it
)

// Strip appends what is left of p to dst.
func (s *Stripper) Strip(dst, p []byte) []byte {
	for _, c := range p {
		// A newline ends whatever was not finished: a broken sequence hides one line at most.
		if c == '\n' {
			s.state = plain
		}
		switch s.state {
		case plain:
			dst = s.plain(dst, c)
		case escape:
			s.state = afterEscape(c)
		case intermediate:
			if c < 0x20 || c > 0x2f {
				s.state = plain
			}
		case control:
			if c >= 0x40 && c <= 0x7e || c < 0x20 && c != 0x1b {
				s.state = plain
			}
			if c == 0x1b {
				s.state = escape
			}
		case text:
			switch c {
			case 0x07, 0x18, 0x1a:
				s.state = plain
			case 0x1b:
				s.state = textEscape
			}
		case textEscape:
			if s.state = plain; c != '\\' { // ESC ended the text and begins another sequence
				s.state = afterEscape(c)
			}
		}
	}
	return dst
}

func (s *Stripper) plain(dst []byte, c byte) []byte {
	if s.cr {
		s.cr = false
		if c != '\n' {
			dst = append(dst, '\n')
		}
	}
	switch {
	case c == 0x1b:
		s.state = escape
	case c == '\r':
		s.cr = true
	case c == '\n' || c == '\t' || c >= 0x20 && c != 0x7f:
		dst = append(dst, c)
	}
	return dst
}

func afterEscape(c byte) stripState {
	switch {
	case c == '[':
		return control
	case c == ']' || c == 'P' || c == 'X' || c == '^' || c == '_':
		return text
	case c >= 0x20 && c <= 0x2f:
		return intermediate
	case c == 0x1b:
		return escape
	}
	return plain
}
