package serve

import (
	"encoding/binary"
	"math/bits"
)

// keccak384 is Keccak with 48 bytes of output and the original padding, which the
// reference's legacy socket offers and no library here does.
func keccak384(msg []byte) []byte {
	const rate = 200 - 2*48
	var a [25]uint64
	padded := append(append([]byte{}, msg...), 0x01)
	for len(padded)%rate != 0 {
		padded = append(padded, 0)
	}
	padded[len(padded)-1] |= 0x80
	for ; len(padded) > 0; padded = padded[rate:] {
		for i := range rate / 8 {
			a[i] ^= binary.LittleEndian.Uint64(padded[8*i:])
		}
		keccakF(&a)
	}
	var out []byte
	for i := range 6 {
		out = binary.LittleEndian.AppendUint64(out, a[i])
	}
	return out
}

// keccakF is the permutation Keccak-f[1600] (FIPS 202, 3.3).
func keccakF(a *[25]uint64) {
	lfsr := uint8(1)
	for range 24 {
		var c [5]uint64
		for x := range 5 {
			c[x] = a[x] ^ a[x+5] ^ a[x+10] ^ a[x+15] ^ a[x+20]
		}
		for i := range 25 {
			x := i % 5
			a[i] ^= c[(x+4)%5] ^ bits.RotateLeft64(c[(x+1)%5], 1)
		}
		x, y, t := 1, 0, a[1]
		for r := range 24 { // rho and pi walk the lanes in one cycle
			x, y = y, (2*x+3*y)%5
			t, a[x+5*y] = a[x+5*y], bits.RotateLeft64(t, (r+1)*(r+2)/2)
		}
		for y := 0; y < 25; y += 5 {
			row := [5]uint64(a[y : y+5])
			for x := range 5 {
				a[y+x] = row[x] ^ (^row[(x+1)%5] & row[(x+2)%5])
			}
		}
		for j := range 7 { // iota: one bit of the round constant at 2^j-1
			if lfsr&1 != 0 {
				a[0] ^= 1 << ((1 << j) - 1)
			}
			hi := lfsr >> 7
			lfsr = lfsr<<1 ^ hi*0x71
		}
	}
}
