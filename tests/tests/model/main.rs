//! The software SMMUv3, by itself and under the real driver.

mod driver;
