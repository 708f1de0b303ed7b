package main

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"testing"

	"stepwire.example/go_worker/stepwire"
)

func TestAPhotoBecomesAThumbnailWithItsColours(t *testing.T) {
	photo := image.NewRGBA(image.Rect(0, 0, 640, 480))
	for x := range 640 {
		for y := range 480 {
			photo.Set(x, y, color.RGBA{uint8(x * 255 / 639), 40, uint8(y * 255 / 479), 255})
		}
	}
	var data bytes.Buffer
	if err := jpeg.Encode(&data, photo, nil); err != nil {
		t.Fatal(err)
	}
	small, err := resize(context.Background(), picture{Image: data.Bytes(), Width: 64})
	if err != nil {
		t.Fatal(err)
	}
	thumbnail, err := png.Decode(bytes.NewReader(small))
	if err != nil {
		t.Fatal(err)
	}
	if size := thumbnail.Bounds().Size(); size != image.Pt(64, 48) {
		t.Fatalf("the thumbnail has %v", size)
	}
	left, _, _, _ := thumbnail.At(1, 24).RGBA()
	right, _, _, _ := thumbnail.At(62, 24).RGBA()
	if left>>8 > 30 || right>>8 < 225 {
		t.Fatalf("red goes from %d to %d", left>>8, right>>8)
	}
}

func TestWhatIsNoPictureIsFinal(t *testing.T) {
	var failure *stepwire.Failure
	if _, err := resize(context.Background(), picture{Image: []byte("text"), Width: 64}); !errors.As(err, &failure) || !failure.Final {
		t.Fatal(err)
	}
}
