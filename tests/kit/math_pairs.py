"""Answers in many spellings: those of one row are equal, those of two rows are not."""

CLASSES: tuple[tuple[str, ...], ...] = tuple(
    tuple(spelling.strip() for spelling in row.split("  ") if spelling.strip())
    for row in r"""
5  5.0  5.  +5  $5$  \$5  5 dollars  \frac{10}{2}  10/2  x=5  \text{5}  5\text{ dollars}  \sqrt{25}  05  |-5|
-5  -5.00  \sqrt[3]{-125}  −5  -\frac{5}{1}  (-5)  -\left(5\right)  y = -5  5 - 10
0  0.0  -0  3-3  \sin(0)  0\cdot 7  \ln 1
0.5  .5  \frac12  \frac{1}{2}  \dfrac{1}{2}  \tfrac12  1/2  2/4  0.50  \frac{\frac{1}{4}}{\frac12}  2^{-1}  50/100  \cos\frac{\pi}{3}
-1/2  -0.5  -\frac12  \frac{-1}{2}  \frac{1}{-2}
1/3  \frac13  \frac{1}{3}  0.3333333  2/6
2/3  \frac23  0.66666667  \frac{4}{6}
1.5  1\frac12  1 1/2  \frac32  3/2  1\frac{1}{2}  150/100
1000  1,000  1{,}000  10^3  1\,000  1000 meters  1.0 \times 10^3  \$1,000
12345678  12,345,678
1234567.89  1,234,567.89  \$1,234,567.89
0.001  10^{-3}  1 \times 10^{-3}  1/1000
-1800000000  -1.8 billion  -1,800,000,000
24  4!  2 dozen  8\times3  24^\circ  24\%  24 eggs
\pi  3.14159265  \frac{2\pi}{2}  π  \pi^1
\frac{\pi}{2}  \pi/2  0.5\pi  \frac12\pi  \arcsin(1)
2\pi  6.2831853  2 \cdot \pi  \pi + \pi
e  2.718281828  e^1  \exp(1)
i  \sqrt{-1}
\sqrt2  \sqrt{2}  2^{1/2}  \frac{2}{\sqrt{2}}  1.41421356  √2  \frac{\sqrt8}{2}
2\sqrt2  \sqrt{8}  2\cdot\sqrt{2}  \sqrt2+\sqrt{2}
\sqrt[3]{2}  2^{\frac13}  1.25992105
2\sqrt[3]{5}  \sqrt[3]{40}  -\sqrt[3]{-40}
1+\sqrt{3}  \sqrt3+1  \frac{2}{\sqrt3-1}
\frac{1+\sqrt5}{2}  \frac12+\frac{\sqrt5}{2}  1.61803399  \frac{\sqrt5 + 1}{2}
\infty  +\infty  ∞
-\infty  -∞
\ln 2  \ln(2)  0.693147181  \log(2)
\log_2 3  \frac{\ln 3}{\ln 2}  \log_{2}{3}
3  \log_2 8  \sqrt9  27^{1/3}  \log_{10} 1000
x  1x  \frac{2x}{2}  x^1
2x  x+x  2\cdot x  x \times 2
xy  yx  x\cdot y  y*x
x^2+2x+1  (x+1)^2  1+2x+x^2  x(x+2)+1  (x+1)(1+x)
x^2-1  (x-1)(x+1)  -(1-x^2)  (x + 1)(x - 1)
\frac{1}{x}  x^{-1}  1/x  \frac{x}{x^2}
\frac{x+1}{2}  \frac{x}{2}+\frac12  (x+1)/2  0.5x+0.5
\sin^2 x  (\sin x)^2  1-\cos^2 x  sin(x)^2
\sin 2x  2\sin x\cos x  \sin(2x)
\tan x  \frac{\sin x}{\cos x}
e^{2x}  (e^x)^2  \exp(2x)
\alpha+1  1+\alpha
a_1+a_2  a_2+a_1  a_{1}+a_{2}
(1,2)  (1, 2)  \left(1,2\right)  (\frac22,2.0)
(2,1)  ( 2 , 1 )  (\sqrt4, 1)
[1,2]  \left[1, 2\right]  [1,\frac42]
[1,2)  [1, 2)  [1.0,2)
(1,2]  (1, \sqrt{4}]
[0,\infty)  [0, \infty)  [0,∞)
(-\infty,1)\cup(2,3)  (2,3) \cup (-\infty, 1)  (-∞,1)∪(2,3)
\{1,2,3\}  \{3, 2, 1\}  {1,2,3}  \{2,\frac{2}{2},3\}  \lbrace 1,3,2\rbrace
\{1,2\}  \{2,1\}  {1, 2}
7, 8  8, 7  7 and 8  8\text{ or }7  7,8
2\pm\sqrt3  2+\sqrt3, 2-\sqrt3  2-\sqrt{3}, \sqrt3+2
\pm 4  4, -4  -4\text{ and }4
(1,2,3)  (1, 2, 3)  (1,2,\frac{6}{2})
\begin{pmatrix}1\\2\end{pmatrix}  \begin{bmatrix}1\\2\end{bmatrix}  \begin{pmatrix} 1 \\ \frac42 \end{pmatrix}
\begin{pmatrix}1&2\\3&4\end{pmatrix}  \begin{pmatrix} 1 & 2 \\ 3 & 2^2 \end{pmatrix}
y=2x+1  2x+1=y  y = 1+2x  y-2x=1
x+y=3  2x+2y=6  x = 3-y
Monday  monday  \text{Monday}  \textbf{Monday}.
Friday  \text{friday}
C  (C)  \text{(C)}  \text{C}
""".strip().splitlines()
)
