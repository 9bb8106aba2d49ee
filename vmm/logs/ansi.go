package logs

// Stripper removes terminal control sequences (ECMA-48) from a stream, whatever
// pieces it arrives in: a guest's console must not move the reader's cursor, set
// titles or hide lines. It also drops control characters except tab and newline,
// and a carriage return that is not followed by a newline becomes a newline. The
// same in their 8-bit form (U+0080 to U+009F, in UTF-8 or as bare bytes) is removed
// too: some terminals obey it.
// The zero value is ready. It keeps no more than a few bytes.
type Stripper struct {
	state stripState
	cr    bool // a carriage return waits for what follows
	c2    bool // so does the byte that begins U+0080 to U+00BF in UTF-8
	more  int  // bytes that the present UTF-8 sequence still has
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
	if part := c >= 0x80 && c <= 0xbf; part && s.c2 && c >= 0xa0 {
		s.c2 = false
		return append(dst, 0xc2, c)
	} else if part && s.more > 0 {
		s.more--
		return append(dst, c)
	}
	s.c2, s.more = c == 0xc2, follow(c)
	switch {
	case c == 0x1b:
		s.state = escape
	case c == '\r':
		s.cr = true
	case c >= 0x80 && c <= 0x9f:
		s.state = afterEscape(c - 0x40) // its 7-bit form is ESC and that
	case c == '\n' || c == '\t' || c >= 0x20 && c != 0x7f && c != 0xc2:
		dst = append(dst, c)
	}
	return dst
}

// follow is how many bytes follow a UTF-8 sequence's first one, that of U+0080 to
// U+00BF aside.
func follow(c byte) int {
	switch {
	case c >= 0xc3 && c <= 0xdf:
		return 1
	case c >= 0xe0 && c <= 0xef:
		return 2
	case c >= 0xf0 && c <= 0xf4:
		return 3
	}
	return 0
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
