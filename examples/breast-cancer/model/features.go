package model

// Features is the number of features of a sample.
const Features = 30

// ranges are the smallest and largest value of each feature, from the published
// description of the data set (scikit-learn, "Breast cancer Wisconsin dataset",
// summary statistics). They are constants of the app: every hospital scales in
// the same way, and none has to tell anybody the mean of its patients.
var ranges = [Features][2]float64{
	{6.981, 28.11}, {9.71, 39.28}, {43.79, 188.5}, {143.5, 2501}, {0.053, 0.163}, // means: radius, texture, perimeter, area, smoothness,
	{0.019, 0.345}, {0, 0.427}, {0, 0.201}, {0.106, 0.304}, {0.05, 0.097}, // compactness, concavity, concave points, symmetry, fractal dimension
	{0.112, 2.873}, {0.36, 4.885}, {0.757, 21.98}, {6.802, 542.2}, {0.002, 0.031}, // standard errors of the same
	{0.002, 0.135}, {0, 0.396}, {0, 0.053}, {0.008, 0.079}, {0.001, 0.03},
	{7.93, 36.04}, {12.02, 49.54}, {50.41, 251.2}, {185.2, 4254}, {0.071, 0.223}, // worst (mean of the three largest) of the same
	{0.027, 1.058}, {0, 1.252}, {0, 0.291}, {0.156, 0.664}, {0.055, 0.208},
}

// Scale maps feature i from its published range to [-1, 1]; values outside of
// it map outside.
func Scale(i int, v float64) float64 {
	lo, hi := ranges[i][0], ranges[i][1]
	return (2*v - lo - hi) / (hi - lo)
}
