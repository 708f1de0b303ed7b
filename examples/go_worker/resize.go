// The task that makes a picture smaller, or larger.

package main

import (
	"bytes"
	"context"
	"fmt"
	"image"
	_ "image/gif"
	_ "image/jpeg"
	"image/png"

	"golang.org/x/image/draw"

	"stepwire.example/go_worker/stepwire"
)

const mostPixels = 64 << 20

// picture is the task's input. In JSON the image is a text in base64.
type picture struct {
	Image []byte `json:"image"` // PNG, JPEG or GIF
	Width int    `json:"width"` // wanted, in pixels; the height follows
}

// resize gives the picture as PNG.
func resize(ctx context.Context, wanted picture) ([]byte, error) {
	shape, format, err := image.DecodeConfig(bytes.NewReader(wanted.Image))
	if err != nil {
		return nil, &stepwire.Failure{Type: "NotAPicture", Message: fmt.Sprintf("%d bytes are no picture: %v", len(wanted.Image), err), Final: true}
	}
	width, height := wanted.Width, max(1, shape.Height*wanted.Width/max(1, shape.Width))
	if width < 1 || width > mostPixels || width*height > mostPixels || shape.Width*shape.Height > mostPixels {
		return nil, &stepwire.Failure{Type: "BadSize", Message: fmt.Sprintf("a %s of %d×%d can't become %d×%d: a picture has at most %d pixels",
			format, shape.Width, shape.Height, width, height, mostPixels), Final: true}
	}
	source, _, err := image.Decode(bytes.NewReader(wanted.Image))
	if err != nil {
		return nil, &stepwire.Failure{Type: "NotAPicture", Message: "the picture is damaged: " + err.Error(), Final: true}
	}
	if ctx.Err() != nil { // scaling takes long: a look at the last moment before it
		return nil, context.Cause(ctx)
	}
	target := image.NewRGBA(image.Rect(0, 0, width, height))
	draw.CatmullRom.Scale(target, target.Bounds(), source, source.Bounds(), draw.Src, nil)
	var data bytes.Buffer
	if err := png.Encode(&data, target); err != nil {
		return nil, err
	}
	return data.Bytes(), nil
}
